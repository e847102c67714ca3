"""Many cases in one test, where the name of each would be worth less than what it costs."""

import inspect
from functools import wraps


def each(names, cases):
    """Like pytest.mark.parametrize, in one test: what fails notes its case."""
    names = names.split(", ")

    def decorate(test):
        @wraps(test)
        def all_cases(**fixtures):
            for case in cases:
                values = dict(zip(names, case if len(names) > 1 else [case], strict=True))
                try:
                    test(**fixtures, **values)
                except BaseException as error:
                    error.add_note(", ".join(f"{name} = {x}" for name, x in values.items()))
                    raise

        signature = inspect.signature(test)
        kept = [p for name, p in signature.parameters.items() if name not in names]
        all_cases.__signature__ = signature.replace(parameters=kept)
        return all_cases

    return decorate
