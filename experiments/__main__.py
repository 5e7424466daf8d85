"""`python -m experiments` is `ctr`: what torchrun starts on every rank."""

from experiments.cli import main

if __name__ == "__main__":
    main()
