"""The rows of a text: windows, which are cut from it as they are gathered."""

import numpy as np

from dpedf.data.layout import ChunkedRows


class TextWindows:
    """The windows of a text as rows: row i is text[a : a + T] with a = i * stride + shift.

    text: (M,), as rows of one of the kinds above.  put: brings an array to where the text is.
    after: how many symbols have to follow a window, so that there are rows of labels too.
    """

    def __init__(self, text, T, stride, shift=0, after=0, put=np.asarray):
        self.text, self.T, self.stride, self.shift, self.after = text, T, stride, shift, after
        self.shape, self.dtype = ((text.shape[0] - after - T) // stride + 1, T), text.dtype
        self.offsets = put(np.arange(shift, shift + T))
        if isinstance(text, ChunkedRows):
            self.chunk = max(1, text.chunk // stride)
            self.window = max(2, text.window * text.chunk // (self.chunk * stride))

    def positions(self, numbers):
        """The positions in the text of the symbols of these rows, (len(numbers), T)."""
        return numbers[:, None] * self.stride + self.offsets

    def gather(self, numbers, out):
        self.text.gather(self.positions(numbers), out)

    def take_on_device(self, numbers):
        """These rows, on the device, where their numbers are as well."""
        return self.text.take_on_device(self.positions(numbers))

    def moved_to(self, text, put):
        """The same windows of a copy of the text that is somewhere else."""
        return TextWindows(text, self.T, self.stride, self.shift, self.after, put)
