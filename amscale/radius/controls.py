"""Vectors in which there is nothing to find, to hold the measured ones against."""

import torch
from torch import Tensor

_ROWS = 4096


def shuffled(vectors_PC: Tensor, seed: int) -> Tensor:
    """Each coordinate shuffled among the vectors: its distribution stays, what ties the coordinates together goes."""
    generator = torch.Generator().manual_seed(seed)
    result_PC = torch.empty_like(vectors_PC)
    for column in range(vectors_PC.shape[1]):
        result_PC[:, column] = vectors_PC[torch.randperm(len(vectors_PC), generator=generator), column]
    return result_PC


def gaussian(vectors_PC: Tensor, seed: int) -> Tensor:
    """As many draws of the normal distribution with the vectors' mean and covariance, float32."""
    generator = torch.Generator().manual_seed(seed)
    count, width = vectors_PC.shape
    mean_C = torch.zeros(width, dtype=torch.float64)
    for rows_RC in vectors_PC.split(_ROWS):
        mean_C += rows_RC.double().sum(0) / count
    covariance_CC = torch.zeros(width, width, dtype=torch.float64)
    for rows_RC in vectors_PC.split(_ROWS):
        centred_RC = rows_RC.double() - mean_C
        covariance_CC += centred_RC.T @ centred_RC / count
    variance_C, axes_CC = torch.linalg.eigh(covariance_CC)
    root_CC = axes_CC * variance_C.clamp(min=0).sqrt()
    result_PC = torch.empty(count, width)
    for rows_RC in result_PC.split(_ROWS):
        normal_RC = torch.randn(rows_RC.shape, generator=generator, dtype=torch.float64)
        rows_RC.copy_(normal_RC @ root_CC.T + mean_C)
    return result_PC
