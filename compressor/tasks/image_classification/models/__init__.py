"""Image models from timm and Hugging Face, and students that are made anew."""
