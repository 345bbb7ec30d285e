"""Train, evaluate and sample: ``python train.py --help``."""

from lightning_ddpm.cli import main

if __name__ == "__main__":
    main()
