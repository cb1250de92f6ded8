"""What Windows' service manager starts: this file, by the base interpreter.

A virtual environment's python.exe, and the sluicegate.exe that pip writes, start another process
and wait for it; the manager would talk to the wrong one. So the base interpreter runs this file
and is told where the packages are: python.exe -I windows_entry.py SITE-PACKAGES service host ...
"""

from __future__ import annotations

import site
import sys

if __name__ == "__main__":
    packages, *arguments = sys.argv[1:]
    site.addsitedir(packages)
    from proxy.cli import main

    sys.exit(main(arguments))
