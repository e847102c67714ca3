"""A ResNet on images that are cropped, flipped and cut, on several ranks."""

from launcher import ROOT, phi_sha256, train
from shipped import settings_of


def test_a_resnet_ends_with_one_phi_on_any_number_of_ranks(tmp_path):
    """Of a minibatch of 16 rows in 4 slices, on 3 ranks; the last of an epoch has 14."""
    words = [*settings_of("cifar10", tmp_path / "data", rows=46), "train.steps=3", "train.epochs=0"]
    words += ["model.depth=8", "model.width=2", "model.cutout=9", "train.slices=4"]
    config = ROOT / "configs" / "cifar10.toml"
    one, several = (phi_sha256(train(n, config, *words)) for n in (1, 3))
    assert one == several
