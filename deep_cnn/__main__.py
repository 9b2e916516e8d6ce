"""Run the command line: `python -m deep_cnn`."""

import signal

# Let Ctrl-C end the process until the command line handles it; an import could not.
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from deep_cnn.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
