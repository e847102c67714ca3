"""Settings that are each right, and wrong together."""

import msgspec

from dpedf.errors import UserError
from dpedf.run.own_code import own_file
from dpedf.run.settings.explain import in_toml

# The settings of [train] that only some optimizers have.
OPTIMIZERS_WITH = {
    "momentum": ("sgd", "rmsprop"),
    "nesterov": ("sgd",),
    "betas": ("adam", "adamw"),
    "smoothing": ("rmsprop",),
    "epsilon": ("adam", "adamw", "rmsprop"),
}
ENDING_LOW = "linear", "cosine"  # the schedules with min_learning_rate


def expect_consistent(train):
    """UserError: a setting of [train] that its optimizer or schedule does not have, or a rate that
    rises.

    What a rule or a schedule of the user's own reads is known when it is tried (rules.py).
    """
    for field in msgspec.structs.fields(train):
        found, optimizer = getattr(train, field.name), train.optimizer
        users = OPTIMIZERS_WITH.get(field.name, (optimizer,))
        if optimizer not in users and not own_file(optimizer) and found != field.default:
            given = f"train.{field.name} = {found!r} is of {', '.join(users)}"
            off = f"none (train.{field.name} = {in_toml(field.default)})"
            raise UserError(f"{given}, expected {off} with train.optimizer = {optimizer!r}")
    low, high = train.min_learning_rate, train.learning_rate
    if low > high:
        raise UserError(
            f"train.min_learning_rate = {low!r}, expected at most train.learning_rate = {high!r}"
        )
    if low and train.schedule not in ENDING_LOW and not own_file(train.schedule):
        found = f"train.min_learning_rate = {low!r} is of the schedules {', '.join(ENDING_LOW)}"
        off = "none (train.min_learning_rate = 0.0)"
        raise UserError(f"{found}, expected {off} with train.schedule = {train.schedule!r}")
    if (warmup := train.warmup_steps) and train.schedule == "onecycle":
        found = f"train.warmup_steps = {warmup}: the schedule onecycle has a warm-up of its own"
        raise UserError(f"{found}, expected none (train.warmup_steps = 0)")
