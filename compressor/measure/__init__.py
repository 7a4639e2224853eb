"""What runs here and how fast. Models run in runner processes (targets/); nothing here imports a runtime or torch."""
