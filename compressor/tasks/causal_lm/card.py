"""What best/ says of a language model."""

from compressor.tasks.shipping import Shipping

__all__ = ["SHIPPING"]


class LanguageShipping(Shipping):
    """See `tasks.shipping.Shipping`; `deploy.language` writes the folder."""

    sample = "document"
    in_card = "text"
    task_in_card = "text-generation"
    in_words = True


SHIPPING = LanguageShipping()
