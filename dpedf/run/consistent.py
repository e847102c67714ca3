"""Settings that are each right, and wrong together."""

import msgspec

from dpedf.errors import UserError

# The settings of [train] that only some optimizers have.
OPTIMIZERS_WITH = {
    "momentum": ("sgd", "rmsprop"),
    "nesterov": ("sgd",),
    "betas": ("adam", "adamw"),
    "smoothing": ("rmsprop",),
    "epsilon": ("adam", "adamw", "rmsprop"),
}


def expect_consistent(train):
    """UserError: a setting of [train] that its optimizer does not have, or a rate that rises."""
    for field in msgspec.structs.fields(train):
        found, optimizer = getattr(train, field.name), train.optimizer
        users = OPTIMIZERS_WITH.get(field.name, (optimizer,))
        if optimizer not in users and found != field.default:
            given = f"train.{field.name} = {found!r} is of {', '.join(users)}"
            raise UserError(f"{given}, expected none with train.optimizer = {optimizer!r}")
    low, high = train.min_learning_rate, train.learning_rate
    if low > high:
        raise UserError(
            f"train.min_learning_rate = {low!r}, expected at most train.learning_rate = {high!r}"
        )
    if low and train.schedule != "cosine":
        found = f"train.min_learning_rate = {low!r} is of the schedule cosine"
        raise UserError(f"{found}, expected none with train.schedule = {train.schedule!r}")
