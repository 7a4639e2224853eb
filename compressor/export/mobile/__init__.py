"""Phones: ExecuTorch and LiteRT."""
