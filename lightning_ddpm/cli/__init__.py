"""All that reads the command line."""

from lightning_ddpm.cli.main import main

__all__ = ["main"]
