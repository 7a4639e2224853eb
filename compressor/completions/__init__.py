"""A language model's answers to prompts, written into a table: asked of an endpoint (`client`), as many at a time as
stated (`pool`), each question once (`asking`)."""
