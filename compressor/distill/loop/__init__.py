"""The training loop: it reads top-down and knows neither pixels nor tokens."""
