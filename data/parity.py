"""Parity: is a handwritten digit even (0) or odd (1)?  The images of data/digits.py.

python data/parity.py   # reads data/digits.csv.gz, writes data/parity.h5
"""

from digits import main

if __name__ == "__main__":
    main(__file__, __doc__, label=lambda y: y % 2, classes=2)
