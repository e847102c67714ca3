"""Where a run computes: on the CPU, or on a GPU.

CPU (cpu.py) and GPU (gpu.py) offer the same:

unit: "cpu" or "gpu"; kind: which model; place: this very device, and on which host;
products: what multiplies matrices; note: what the user should know about it, or None.
put(array) brings an array of the host to the device; buffer() is for rows that stream there.
run(key, function, *arguments) calls a function of arrays and numbers, which a GPU may replay;
stop_recording(why) keeps it from that.
wait() waits until everything is computed.
enter_thread() comes first in every thread that uses the device, and close() at the end of a run.
"""

from dpedf.device.arrays import host, overwrite
from dpedf.device.cpu import CPU
