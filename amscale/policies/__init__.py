"""Published policies: how learning rate, batch and other settings follow N, D and the tokens seen.

A policy is one class in one file. The registry POLICIES, or an entry point of the group `amscale.policies`, gives it by
the name that `train.policy` has.
"""

from amscale.errors import InputError
from amscale.policies.policy import Policy, PolicyCell
from amscale.registry import Registry

POLICIES: Registry[type[Policy]] = Registry(
    "amscale.policies",
    {
        "step_law": "amscale.policies.step_law:StepLaw",
        "olmo_ladder": "amscale.policies.olmo_ladder:OlmoLadder",
        "power_lines": "amscale.policies.power_lines:PowerLines",
        "marin": "amscale.policies.marin:Marin",
        "marin_delphi": "amscale.policies.marin:MarinDelphi",
    },
)
"""Every policy by its name."""


def find_policy(name: str) -> Policy:
    """Return the policy of that name.

    Raises:
        InputError: no such name, or what is registered is no policy.
    """
    found = POLICIES.find(name, "train.policy")
    if not (isinstance(found, type) and issubclass(found, Policy)):
        raise InputError(f"amscale.policies: {name!r} is {found!r}; it must be a subclass of amscale.policies.Policy")
    try:
        return found()
    except TypeError as error:
        raise InputError(f"amscale.policies: {name!r} cannot be made without arguments: {error}") from None


__all__ = ["POLICIES", "Policy", "PolicyCell", "find_policy"]
