"""Arrays of any device, seen from the host."""


def host(array):
    """An array, of whatever device, as one of NumPy."""
    return array.get() if hasattr(array, "get") else array


def overwrite(array, values):
    """array[...] = values, where values are on the host and array is on whatever device."""
    if hasattr(array, "set"):
        array.set(values)
    else:
        array[...] = values
