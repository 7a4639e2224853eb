"""Where texts come from: tables, folders, Hugging Face datasets."""
