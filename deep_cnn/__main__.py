"""`python -m deep_cnn`."""

from deep_cnn.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
