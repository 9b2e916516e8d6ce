"""Run the command line: `python -m deep_cnn`."""

import signal

# Until the command line listens for it, Ctrl-C just ends us: an import that it breaks off cannot.
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from deep_cnn.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
