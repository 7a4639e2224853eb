"""Where sounds come from: tables, folders, Hugging Face datasets."""
