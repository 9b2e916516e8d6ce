"""Run the command line: `python -m deep_cnn`."""

import signal

from deep_cnn.processes import exit_at_once, set_handlers


def main() -> int:
    """Run the command line, which can be ended by a signal from the start."""
    # First: the imports take a while, and an import could not handle Ctrl-C.
    set_handlers(exit_at_once)
    if hasattr(signal, "SIGCHLD"):  # If it is ignored, no exit status can be read.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    from deep_cnn.cli import main as run

    return run()


if __name__ == "__main__":
    raise SystemExit(main())
