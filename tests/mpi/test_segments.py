"""/dev/shm is as it was, however a job ends."""

import os
import shutil
import subprocess

import pytest
from launcher import ENVIRONMENT, ROOT, command

ENDS = {
    "regularly": "pass",
    "by an error": "1 / 0",
    "by a signal that nobody handles": "os.kill(os.getpid(), 9)",
}
FAULTY = """
import os
import sys
from dpedf import train
from dpedf.parallel import job

def main(ranks):
    learn = train.Training.learn

    def learn_or_fail(self, *minibatch):
        learn(self, *minibatch)
        if ranks.rank == 1 and self.step.number == 5:
            {}

    train.Training.learn = learn_or_fail
    return train.main(ranks, sys.argv[1:])

job.run(main)
"""
# In a view of the file systems of its own, where no other job has a segment.
ALONE = 'mount -t tmpfs tmpfs /dev/shm && "$@"; echo "left: $(ls /dev/shm)"'


@pytest.mark.parametrize("end", ENDS)
def test_no_segment_outlives_its_job(digits, tmp_path, end):
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"]).returncode:
        pytest.skip("needs root, or a kernel that lets users mount a tmpfs")
    config = ROOT / "configs" / "digits_mlp.toml", f"data.file={digits}", f"run.dir={tmp_path}/run"
    job = command(2, "-c", FAULTY.format(ENDS[end]), *config, "train.steps=10", "data.cache=memory")
    alone = [*unshare, "sh", "-c", ALONE, "sh", *job]
    done = subprocess.run(alone, capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT)
    assert ("phi_sha256" in done.stdout) == (end == "regularly"), done.stdout + done.stderr
    assert done.stdout.endswith("left: \n"), done.stdout
