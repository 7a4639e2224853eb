"""The nouns of kdc as they lie on disk. One file a noun; nothing here imports torch, timm or transformers."""
