"""Networks of one shape as one network: each parameter of all of them is one array, stacked along its front.

The members lie side by side in the batch: tokens of M members with B sequences each are (M·B, T). What has no
parameters (attention, activations, residual sums) runs on such a batch as it is; each module that has some is replaced
by one that multiplies every member's rows by that member's part. So the network's own forward pass is what runs.

`torch.func.vmap` does the same for more modules. On a CPU it takes up to 2.5 times as long: it has no rule for fused
attention there (docs/performance.md).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from amscale.errors import InputError


class PackError(InputError):
    """Trials cannot be trained together; each can alone."""


class _Part(nn.Module):
    """A module whose parameters are views of the stack, one in front of the other for M members.

    Args:
        plain: the module of one network that it replaces.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.bias = None
        self._settings(plain)

    def _settings(self, plain: Any) -> None:
        """Keep what the forward pass needs beside parameters."""


class _Linear(_Part):
    def forward(self, x: Tensor) -> Tensor:
        weight_MIO = self.weight.transpose(1, 2)
        return _product(x, weight_MIO, self.bias)


class _Conv1D(_Part):
    """The transformers library's linear layer, whose weight is the transposed one."""

    def forward(self, x: Tensor) -> Tensor:
        return _product(x, self.weight, self.bias)


def _product(x: Tensor, weight_MIO: Tensor, bias_MO: Tensor | None) -> Tensor:
    members, _, outputs = weight_MIO.shape
    x_MRI = x.reshape(members, -1, x.shape[-1])
    y_MRO = torch.bmm(x_MRI, weight_MIO) if bias_MO is None else torch.baddbmm(bias_MO[:, None], x_MRI, weight_MIO)
    return y_MRO.reshape(*x.shape[:-1], outputs)


class _Norm(_Part):
    """Layer and RMS norms over the last dimension."""

    def _settings(self, plain: Any) -> None:
        self.eps = getattr(plain, "variance_epsilon", getattr(plain, "eps", None))
        self.centred = isinstance(plain, nn.LayerNorm)

    def forward(self, x: Tensor) -> Tensor:
        width = (x.shape[-1],)
        normed = F.layer_norm(x, width, eps=self.eps or 1e-5) if self.centred else F.rms_norm(x, width, eps=self.eps)
        normed_MRD = normed.reshape(len(self.weight), -1, x.shape[-1])
        if self.bias is None:
            return (normed_MRD * self.weight[:, None]).view(x.shape)
        return torch.addcmul(self.bias[:, None], normed_MRD, self.weight[:, None]).view(x.shape)


class _Embedding(_Part):
    rows = 1
    """Sequences of all members in the batch."""

    def forward(self, index: Tensor) -> Tensor:
        members, count, width = self.weight.shape
        first_M1 = torch.arange(members, device=index.device)[:, None] * count
        table = self.weight.reshape(-1, width)
        if index.shape[0] == self.rows and index.dim() == 2:
            return F.embedding(index.reshape(members, -1) + first_M1, table).view(*index.shape, width)
        # Positions, the same for every sequence.
        found_MTD = F.embedding(index.reshape(1, -1) + first_M1, table)
        return found_MTD.repeat_interleave(self.rows // members, dim=0)


_RMS_NORMS = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm", "OlmoeRMSNorm", "Olmo2RMSNorm")
"""The transformers library's norms that are torch's RMSNorm under other names."""


def _part_of(module: nn.Module) -> Callable[[Any], _Part] | None:
    """Return what replaces a module that has parameters of its own; None where nothing does."""
    if isinstance(module, nn.Linear):
        return _Linear
    if isinstance(module, nn.Embedding) and module.padding_idx is None and module.max_norm is None:
        return _Embedding
    if isinstance(module, nn.LayerNorm | nn.RMSNorm) and len(module.normalized_shape) == 1:
        return _Norm if module.elementwise_affine else None
    name = type(module).__name__
    return _Conv1D if name == "Conv1D" else _Norm if name in _RMS_NORMS else None


class StackedNetwork(nn.Module):
    """M networks of one shape: tokens (M·B, T) -> logits (M·B, T, V), member after member.

    Its one parameter, `rows` (M, n), holds every parameter of a member in one row, in the order of `parameters()`.

    Args:
        networks: the members, without dropout.
        template: another network of the shape, whose modules are replaced; its values do not matter.

    Raises:
        PackError: a module that has parameters and cannot be replaced, or dropout.
    """

    is_matrix_N: Tensor

    def __init__(self, networks: Sequence[nn.Module], template: nn.Module) -> None:
        super().__init__()
        drops = [getattr(m, "p", 0) for m in template.modules() if isinstance(m, nn.Dropout)]
        drops += [getattr(m, "dropout", 0) for m in template.modules() if isinstance(getattr(m, "dropout", 0), float)]
        if any(drops):
            raise PackError("dropout draws the same masks for a trial alone and in a pack only where there is none")
        self.shapes = [parameter.shape for parameter in template.parameters()]
        self.sizes = [shape.numel() for shape in self.shapes]
        self.rows = nn.Parameter(torch.stack([flat([*network.parameters()]) for network in networks]))
        matrix = [torch.full((parameter.numel(),), float(parameter.dim() >= 2)) for parameter in template.parameters()]
        self.register_buffer("is_matrix_N", torch.cat(matrix), persistent=False)
        number = {id(parameter): index for index, parameter in enumerate(template.parameters())}
        self._network = template
        self._places: list[tuple[_Part, str, int]] = []
        for name, module in list(template.named_modules()):
            own = dict(module.named_parameters(recurse=False))
            if not own:
                continue
            kind = _part_of(module)
            if kind is None:
                raise PackError(
                    f"{name or 'the network'} ({type(module).__name__}) has parameters that cannot be stacked"
                )
            part = kind(module)
            self._places += [(part, key, number[id(parameter)]) for key, parameter in own.items()]
            parent, _, key = name.rpartition(".")
            setattr(self._network.get_submodule(parent), key, part)

    def forward(self, tokens_RT: Tensor) -> Tensor:
        """Return the logits (M·B, T, V) of the next token."""
        views = [
            part_MK.view(-1, *shape)
            for part_MK, shape in zip(self.rows.split(self.sizes, dim=1), self.shapes, strict=True)
        ]
        for part, key, index in self._places:
            setattr(part, key, views[index])
            if isinstance(part, _Embedding):
                part.rows = len(tokens_RT)
        logits_RTV: Tensor = self._network(tokens_RT)
        return logits_RTV


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return copies of all values in one row."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


class StackedAdamW(torch.optim.AdamW):
    """AdamW on the rows of a stack: each has a learning rate, a weight decay and a number of steps of its own.

    `torch.optim.AdamW` takes one learning rate a group; with a group for each member and its own views every step would
    take as many calls as there are members.

    Args:
        network: whose rows are updated.
        betas, epsilon: of all members.
        weight_decay: of each member's matrices.
        counts: updates that each member has had.
        moments: first and second moment of each member (M, n), float32.
    """

    def __init__(
        self,
        network: StackedNetwork,
        betas: tuple[float, float],
        epsilon: float,
        weight_decay: Sequence[float],
        counts: Sequence[int],
        moments: tuple[Tensor, Tensor],
    ) -> None:
        super().__init__([network.rows], lr=0.0, betas=betas, eps=epsilon, weight_decay=0.0)
        self._rows = network.rows
        self._is_matrix_N = network.is_matrix_N
        self._decay_M1 = torch.tensor(weight_decay)[:, None]
        self.counts = list(counts)
        self.rates = [0.0] * len(counts)
        """Learning rates of the next step."""
        self.skipped: set[int] = set()
        """Members that the next step leaves as they are."""
        self.first_MN, self.second_MN = moments
        self.state[self._rows] = {"exp_avg": self.first_MN, "exp_avg_sq": self.second_MN}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every member but the skipped ones from `rows.grad`."""
        rows_MN, gradient_MN = self._rows.data, self._rows.grad
        assert gradient_MN is not None
        kept = [(m, [x[m].clone() for x in (rows_MN, self.first_MN, self.second_MN)]) for m in self.skipped]
        (beta1, beta2), epsilon = self.param_groups[0]["betas"], self.param_groups[0]["eps"]
        self.counts = [count + (m not in self.skipped) for m, count in enumerate(self.counts)]
        counts = [max(1, count) for count in self.counts]
        step_M1 = torch.tensor([r / (1 - beta1**c) for r, c in zip(self.rates, counts, strict=True)])[:, None]
        root_M1 = torch.tensor([(1 - beta2**c) ** 0.5 for c in counts])[:, None]
        if self._decay_M1.any():
            rows_MN.mul_(1 - torch.tensor(self.rates)[:, None] * self._decay_M1 * self._is_matrix_N)
        self.first_MN.lerp_(gradient_MN, 1 - beta1)
        self.second_MN.mul_(beta2).addcmul_(gradient_MN, gradient_MN, value=1 - beta2)
        denominator_MN = self.second_MN.sqrt().div_(root_M1).add_(epsilon)
        rows_MN.sub_(self.first_MN.div(denominator_MN).mul_(step_M1))
        for m, (row, first, second) in kept:
            rows_MN[m], self.first_MN[m], self.second_MN[m] = row, first, second
