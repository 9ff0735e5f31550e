"""Any causal language model of the transformers library, from scratch, in any size.

The architecture's configuration is scaled: layers, width and heads follow the same rules as in every family, and
feed-forward widths, key heads and experts keep their proportions. Parameters are counted on models that hold no memory
(torch's meta device), so planning with this family imports torch and transformers.
"""

from typing import TYPE_CHECKING, Any

from amscale.errors import InputError
from amscale.models.family import Family
from amscale.models.hub_settings import HubOptions, HubSettings
from amscale.models.shape import Dimensions, ParameterCounts, Shape

if TYPE_CHECKING:
    from torch import nn

    from amscale.models.hub_costs import Counted


class HubFamily(Family):
    """A scaled architecture of the transformers library."""

    settings = HubSettings

    def options(self, settings: HubSettings) -> HubOptions:
        """Return the fields of the architecture's configuration, and those that the settings give.

        Raises:
            InputError: no such architecture, no causal language model, or a field that it does not have.
        """
        from amscale.models.hub_configuration import read_options

        return read_options(settings)

    def default_dimensions(self, options: HubOptions) -> tuple[int, int, int] | None:
        """Return the architecture's own dimensions.

        Raises:
            InputError: its configuration has none, or no attention heads.
        """
        from amscale.models.hub_configuration import base_dimensions

        return base_dimensions(options)

    def width_multiple(self, options: HubOptions) -> int:
        """Return 8 for a mixture of experts, else 1."""
        from amscale.models.hub_configuration import width_multiple

        return width_multiple(options)

    def feed_forward(self, layers: int, width: int, options: HubOptions) -> int:
        """Return the hidden width of a feed-forward block, of one expert where there are several."""
        from amscale.models.hub_configuration import feed_forward

        return feed_forward(width, options)

    def check(self, shape: Shape) -> None:
        """Check that width and heads suit the configuration.

        Raises:
            InputError: a width that experts cannot have, or key heads that do not divide the heads.
        """
        from amscale.models.hub_configuration import configuration, width_multiple

        width, multiple = shape.width, width_multiple(shape.options)
        if width % multiple:
            raise InputError(
                f"model.width = {width}: a mixture of experts needs a multiple of {multiple}; give "
                f"{width + multiple - width % multiple}"
            )
        keys = getattr(configuration(shape), "num_key_value_heads", None)
        if keys is not None and shape.heads % keys:
            raise InputError(
                f"model.options.num_key_value_heads = {keys} does not divide {shape.heads} heads; give one that does, "
                "or model.heads"
            )

    def counts(self, dimensions: Dimensions) -> ParameterCounts:
        """Return the exact parameter counts of a network, those of active experts included."""
        return self._counted(dimensions).parameters

    def counts_of_many(
        self, layers: Any, width: Any, heads: Any, vocabulary: int, context: int, options: HubOptions
    ) -> ParameterCounts:
        """Return the counts of many shapes, as arrays; every layer after the first is taken to be like the second."""
        from amscale.models.hub_costs import count_many

        return count_many(options, layers, width, heads, vocabulary, context)

    def _counted(self, dimensions: Dimensions) -> "Counted":
        from amscale.models.hub_costs import count

        d = dimensions
        return count(d.options, d.layers, d.width, d.heads, d.vocabulary, d.context)

    def matmul_weights(self, shape: Shape) -> int:
        """Return the weights that a token meets in one forward pass, of experts the active ones."""
        return self._counted(shape).matrices + shape.width * shape.vocabulary

    def query_width(self, shape: Shape) -> int:
        """Return the width of the queries, summed over the layers."""
        return shape.layers * self._counted(shape).query_width

    def mean_keys(self, shape: Shape) -> float:
        """Return the keys that a query meets on average; a sliding window shortens them in some or all layers."""
        whole = (shape.context + 1) / 2
        windows = self._counted(shape).windows
        if not windows:
            return whole
        met = [whole if w is None or w >= shape.context else w - w * (w - 1) / (2 * shape.context) for w in windows]
        return sum(met) / len(met)

    def activations_per_token(self, shape: Shape, element: int, mask: int) -> float:
        """Return the bytes that one token keeps for the backward pass, as measured on tiny models (`hub_costs`)."""
        from amscale.models.hub_costs import measure_kept

        kept = measure_kept(shape, element)
        own = kept.per_width * shape.width + kept.per_hidden * shape.feed_forward + kept.constant
        scores = 0.0 if kept.fused else kept.per_score * shape.heads * shape.context
        return shape.layers * (own + scores) + 3 * shape.width * element

    def cpu_scores(self, shape: Shape) -> float:
        """Return the float32 scores that attention on a CPU keeps for each head, query and key, as measured."""
        from amscale.models.hub_costs import measure_kept

        kept = measure_kept(shape, 4)
        return kept.per_score / 4 if kept.fused else 0.0

    def build(self, shape: Dimensions) -> "nn.Module":
        """Return the network, freshly initialised by the library's own rules."""
        from amscale.models.networks.hub import build

        return build(shape)

    def residual_names(self, model: Any) -> list[str]:
        """Return the layers of the library's model."""
        from amscale.models.networks.hub import residual_names

        return residual_names(model)

    def attention_names(self, model: Any) -> list[str]:
        """Return the module of each layer that attends; a layer without such a module is left out."""
        from amscale.models.networks.hub import attention_names

        return attention_names(model)

    def final_norm_name(self, model: Any) -> str | None:
        """Return the norm after the list of layers; None where there is no such norm."""
        from amscale.models.networks.hub import final_norm_name

        return final_norm_name(model)

    def output_head_name(self, model: Any) -> str:
        """Return the module that the library calls the output embeddings."""
        from amscale.models.networks.hub import output_head_name

        return output_head_name(model)
