import sys

from services.alerts.app import PROGRAM
from shared.main import main

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
