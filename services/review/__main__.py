import sys

from services.review.app import PROGRAM
from shared.main import main

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
