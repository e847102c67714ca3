"""The normal distribution, to the last digits: NumPy knows no error function.

Its integral is one of three quotients of polynomials, of W. J. Cody, "Algorithm 715: SPECFUN", ACM
Transactions on Mathematical Software 19, 1993.
"""

from math import pi, sqrt

import numpy as np

from dpedf.kernels import Kernels, function, on_gpu, packed

cuda = Kernels("normal.cu")
NEAR, FAR = 0.67448975, sqrt(32)  # up to NEAR, up to FAR and beyond, another quotient
# Of each, the numerator and the denominator, from the highest power down.
CENTRE = [
    [
        *(0.065682337918207449113, 2.2352520354606839287, 161.02823106855587881),
        *(1067.6894854603709582, 18154.981253343561249),
    ],
    [
        *(1.0, 47.20258190468824187, 976.09855173777669322, 10260.932208618978205),
        *(45507.789335026729956,),
    ],
]
SIDE = [
    [
        *(1.0765576773720192317e-8, 0.39894151208813466764, 8.8831497943883759412),
        *(93.506656132177855979, 597.27027639480026226, 2494.5375852903726711),
        *(6848.1904505362823326, 11602.651437647350124, 9842.7148383839780218),
    ],
    [
        *(1.0, 22.266688044328115691, 235.38790178262499861, 1519.377599407554805),
        *(6485.558298266760755, 18615.571640885098091, 34900.952721145977266),
        *(38912.003286093271411, 19685.429676859990727),
    ],
]
TAIL = [
    [
        *(0.02307344176494017303, 0.21589853405795699, 0.1274011611602473639),
        *(0.022235277870649807, 0.001421619193227893466, 2.9112874951168792e-5),
    ],
    [
        *(1.0, 1.28426009614491121, 0.468238212480865118, 0.0659881378689285515),
        *(0.00378239633202758244, 7.29751555083966205e-5),
    ],
]


def quotient(x, polynomials):
    return np.divide(*(polynomial(x, coefficients) for coefficients in polynomials))


def polynomial(x, coefficients):
    first, second, *others = coefficients
    y = x * first
    y += second
    for coefficient in others:
        y *= x
        y += coefficient
    return y


def normal_density(x):
    """exp(-x**2 / 2) / sqrt(2 pi)"""
    with np.errstate(over="ignore"):  # where the square is infinite, the result is 0
        return np.exp(np.square(x) * -0.5) * (1 / sqrt(2 * pi))


@function
def normal_cdf(x):
    """(1 + erf(x / sqrt(2))) / 2, accurate also where it is small"""
    size = np.abs(x)
    near, side = np.minimum(size, NEAR), np.clip(size, NEAR, FAR)
    far = np.maximum(size, FAR)
    # The exponent is exact: its first part has few digits.
    short = np.trunc(np.minimum(size, 40.0) * 16) / 16
    rest = np.minimum(size, 40.0) - short
    power = np.exp(short * short * -0.5) * np.exp(rest * (rest + 2 * short) * -0.5)
    inverse = 1 / far
    inverse *= inverse
    tail = ((1 / sqrt(2 * pi)) - inverse * quotient(inverse, TAIL)) / far
    below = np.where(size <= FAR, quotient(side, SIDE), tail) * power  # of -size
    centre = 0.5 + np.copysign(near, x) * quotient(near * near, CENTRE)
    return np.where(size <= NEAR, centre, np.where(x < 0, below, 1 - below))


@on_gpu(normal_cdf)
def normal_cdf_on_gpu(x):
    x = packed(x)
    y = np.empty_like(x)
    cuda.normal_cdf(x.size, x, y, x.size)
    return y
