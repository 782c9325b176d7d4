"""What a transformer is made of, found from what its modules do and not from their names.

The model is run once on a few tokens with autograd on, and every weight matrix, block and norm is
watched. The graph then tells which is which:

- the blocks are the module list whose members each take in and give out the residual stream;
- a block's attention output projection is its first matrix whose input at one position depends on
  other positions, for only attention moves information between positions; it reads what other
  matrices gave, and is as wide as the residual stream;
- the matrices that projection depends on belong to the attention; of the others, the last one that
  is as wide as the residual stream is the MLP's output projection, and those it depends on are the
  MLP's input matrices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn

from projector.errors import UserError, named
from projector.model.capture import Tap, capture
from projector.model.context import input_embedding
from projector.sites import SITES, check_sites, default_sites

_N_TRIAL_TOKENS = 6


@dataclass(frozen=True)
class Matrix:
    """A module that multiplies by a weight matrix, such as ``nn.Linear`` or GPT-2's ``Conv1D``.

    ``input_axis`` is the axis of ``module.weight`` that runs over inputs: 1 for ``nn.Linear``,
    whose weight is (out, in), and 0 for ``Conv1D``, whose weight is (in, out).
    """

    name: str
    module: nn.Module
    n_inputs: int
    n_outputs: int
    input_axis: int


@dataclass(frozen=True)
class Mlp:
    """The matrices around a block's MLP neurons.

    ``inputs`` write the neurons: one matrix, two for a gated MLP, or a single one of 2·n_neurons
    outputs where gate and up are ``fused``. ``output`` reads them.

    ``activation`` is what a neuron's input passes through, and ``gate`` tells which of two inputs
    (or which half of a fused one) does; it is None where no function of the inputs alone was found
    to give the neurons. ``adds_to_stream`` tells whether what ``output`` gives is added to the
    residual stream as it is, with no norm or factor on the way.
    """

    inputs: tuple[Matrix, ...]
    output: Matrix
    n_neurons: int
    fused: bool
    activation: Callable[[Tensor], Tensor] | None = None
    gate: int = 0
    adds_to_stream: bool = False

    def neurons(self, inputs: Sequence[Tensor]) -> Tensor:
        """The neurons' activations, (…, N), from what each input matrix gives, (…, N) each.

        Gate and up are given apart also where the model holds them fused.

        Raises:
            ValueError: if the MLP's activation is not known.
        """
        if self.activation is None:
            raise ValueError("this MLP's neurons are no known function of its inputs")
        gated = self.activation(inputs[self.gate])
        return gated if len(inputs) == 1 else gated * inputs[1 - self.gate]


@dataclass(frozen=True)
class Block:
    """One layer: where each site is read, how wide it is, and why a site is missing."""

    name: str
    module: nn.Module
    taps: dict[str, Tap]
    widths: dict[str, int]
    missing: dict[str, str]
    mlp: Mlp | None
    attention_output: Matrix | None


@dataclass(frozen=True)
class Architecture:
    """The blocks of a model, in order; whether it is causal; the width of its residual stream."""

    blocks: tuple[Block, ...]
    is_causal: bool
    n_hidden: int

    def choose_sites(self, sites: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
        """The sites to read, and why each that is missing, or is in some layers, is.

        Raises:
            SettingError: if a named site is known to no model.
            UserError: if no layer of this model has it, or has any that would be read.
        """
        check_sites(sites)
        chosen: list[str] = []
        left_out: dict[str, str] = {}
        for site in default_sites() if sites is None else dict.fromkeys(sites):
            lacking = [i for i, block in enumerate(self.blocks) if site not in block.taps]
            if len(lacking) < len(self.blocks):
                chosen.append(site)
                if lacking:
                    where = ", ".join(str(i) for i in lacking)
                    left_out[site] = f"in layers {where}: {self.blocks[lacking[0]].missing[site]}"
                continue
            reason = self.blocks[0].missing[site]
            if sites is not None:
                raise UserError(
                    f"this model has no site '{site}': {reason}", setting="sites", value=site
                )
            left_out[site] = reason
        if not chosen:
            raise UserError(
                f"{named('sites')} names no site of this model: choose from {', '.join(SITES)}",
                setting="sites",
            )
        return chosen, left_out

    def choose_layers(self, layers: Iterable[int] | None) -> list[int]:
        """The layers to read, in order.

        Raises:
            UserError: if the model lacks a layer, or none is named.
        """
        n_layers = len(self.blocks)
        chosen = sorted(set(range(n_layers) if layers is None else layers))
        for layer in chosen:
            if not 0 <= layer < n_layers:
                raise UserError(
                    f"this model has no layer {layer}: it has layers 0 to {n_layers - 1}",
                    setting="layers",
                    value=layer,
                )
        if not chosen:
            raise UserError(
                f"{named('layers')} names no layer: the model has layers 0 to {n_layers - 1}",
                setting="layers",
            )
        return chosen

    def taps(self, sites: Sequence[str], layers: Sequence[int]) -> dict[tuple[int, str], Tap]:
        """The taps of every (layer, site) that exists among those asked for."""
        return {
            (layer, site): self.blocks[layer].taps[site]
            for layer in layers
            for site in sites
            if site in self.blocks[layer].taps
        }


@torch.enable_grad()
def find_architecture(model: nn.Module) -> Architecture:
    """Find the blocks and sites of a Hugging Face transformer that reads token ids.

    Costs one forward pass over six tokens and a few short backward ones; no gradient is kept and
    the model is left as it was.

    Raises:
        UserError: if the model is no transformer over token ids, or is an encoder-decoder one.
    """
    config = getattr(model, "config", None)
    if getattr(model, "main_input_name", "input_ids") != "input_ids":
        raise UserError(
            f"{type(model).__name__} reads {model.main_input_name}, not text: "
            "give a transformer language model"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(
            f"{type(model).__name__} is an encoder-decoder model, which is not supported: "
            "give an encoder or a decoder"
        )
    trial = _run_trial(model)
    name, members = _find_block_list(model, trial)
    stream = trial.inputs[members[0]]
    if stream.ndim == 3 and stream.shape[0] != 1:
        raise UserError(
            f"{type(model).__name__} lays positions before sequences, which is not supported"
        )
    try:
        return _describe(name, members, trial)
    except (AttributeError, RuntimeError, TypeError) as error:
        raise UserError(
            f"{type(model).__name__} can't be taken apart, for autograd does not follow it: "
            f"{_one_line(error)}"
        ) from error


def _describe(name: str, members: list[nn.Module], trial: _Trial) -> Architecture:
    parts = [_Parts.of(f"{name}.{i}", member, trial) for i, member in enumerate(members)]
    first = parts[0]
    return Architecture(
        blocks=tuple(_describe_block(part, trial) for part in parts),
        is_causal=not _depends_on_positions(trial.outputs[first.module], first.stream, reader=0),
        n_hidden=first.stream.shape[-1],
    )


@dataclass
class _Trial:
    """What passed through the watched modules in one run, in the order of their calls."""

    names: dict[nn.Module, str]
    inputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    outputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    n_calls: Counter[nn.Module] = field(default_factory=Counter)


def _run_trial(model: nn.Module) -> _Trial:
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    members = {member for each in lists for member in each}
    names = {module: name for name, module in model.named_modules()}
    # Leaves, blocks and experts: all that can be a matrix, a norm or a member of the block list,
    # and the modules between them, of which a mixture of experts is one.
    trial = _Trial(names)
    taps = {
        (module, side): Tap(module, side)
        for module in names
        if module is not model and (module in members or not isinstance(module, nn.ModuleList))
        for side in ("input", "output")
    }

    def keep(key: tuple[nn.Module, str], tensor: Tensor) -> None:
        module, side = key
        if side == "input":
            trial.n_calls[module] += 1
            # Kept in the order of the calls, which dicts preserve.
            trial.inputs.setdefault(module, tensor)
        else:
            trial.outputs.setdefault(module, tensor)

    table = _token_embedding(model)
    ids = (torch.arange(_N_TRIAL_TOKENS, device=table.device) * 7 + 11) % table.shape[0]
    inputs = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids[None])}
    # Each module has a flag of its own: part of a model in training may be set to evaluate.
    were_training = [module for module in model.modules() if module.training]
    required_grad = table.requires_grad
    model.eval()
    table.requires_grad_(True)
    try:
        with capture(taps, keep, skip_empty=True):
            model(**inputs)
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise UserError(
            f"{type(model).__name__} could not be run on {_N_TRIAL_TOKENS} tokens: "
            f"{_one_line(error)}"
        ) from error
    finally:
        table.requires_grad_(required_grad)
        for module in were_training:
            module.training = True
    return trial


def _token_embedding(model: nn.Module) -> Tensor:
    table = getattr(input_embedding(model), "weight", None)
    if not isinstance(table, Tensor):
        raise UserError(
            f"{type(model).__name__} has no token embedding, so it is no transformer language model"
        )
    return table


def _find_block_list(model: nn.Module, trial: _Trial) -> tuple[str, list[nn.Module]]:
    """The module list, largest in parameters, whose members each pass the residual stream on."""
    best: tuple[int, str, list[nn.Module]] | None = None
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or len(module) == 0:
            continue
        members = list(module)
        if not all(
            member in trial.inputs
            and member in trial.outputs
            and trial.inputs[member].shape == trial.outputs[member].shape
            and trial.inputs[member].is_floating_point()
            and any(child in trial.inputs for child in member.modules() if _is_matrix(child))
            for member in members
        ):
            continue
        n_parameters = sum(p.numel() for p in module.parameters())
        # XLM keeps attention and MLPs in lists of their own: neither hands the stream on.
        if not all(_equal(trial.outputs[a], trial.inputs[b]) for a, b in pairwise(members)):
            continue
        if best is None or n_parameters > best[0]:
            best = (n_parameters, name, members)
    if best is None:
        raise UserError(
            f"{type(model).__name__} has no list of transformer blocks, so it is no transformer"
        )
    _, name, members = best
    if any(trial.n_calls[member] > 1 for member in members):
        raise UserError(
            f"{type(model).__name__} runs the same block several times: layers that share their "
            "weights are not supported"
        )
    return name, members


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same, wherever they lie and be it NaN."""
    first, second = (t.detach().cpu().nan_to_num() for t in (a, b))
    return torch.equal(first, second)


def _is_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 2 and not isinstance(module, nn.Embedding)


def _is_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 1


def _describe_matrix(module: nn.Module, trial: _Trial) -> Matrix:
    x, y = trial.inputs[module].detach(), trial.outputs[module].detach()
    weight, bias = getattr(module, "weight"), getattr(module, "bias", None)  # noqa: B009
    input_axis = 1 if weight.shape == (y.shape[-1], x.shape[-1]) else 0
    if weight.shape[0] == weight.shape[1]:
        # The shape of a square matrix does not tell which axis is which; what it computes does. It
        # is run again, for the model may have changed in place what it gave in the trial.
        shift = 0 if bias is None else bias
        with torch.no_grad():
            y = module(x)
            errors = [(y - (x @ w + shift)).float().norm() for w in (weight, weight.T)]
        input_axis = int(errors[1] < errors[0])
    return Matrix(trial.names[module], module, x.shape[-1], y.shape[-1], input_axis)


def _depends_on_positions(tensor: Tensor, stream: Tensor, reader: int) -> bool:
    """Whether ``tensor`` at position ``reader`` depends on ``stream`` at any other position."""
    row = tensor.reshape(-1, tensor.shape[-1])[reader]
    # Random weights, for a plain sum may be constant (a normalised row sums to nothing).
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(row.shape, generator=generator).to(row)
    (gradient,) = torch.autograd.grad(row @ probe, stream, retain_graph=True, allow_unused=True)
    if gradient is None:
        return False
    by_position = gradient.reshape(-1, gradient.shape[-1]).abs().amax(dim=1)
    by_position[reader] = 0
    return bool((by_position > 0).any())


def _on_which_depends(tensor: Tensor, sources: Sequence[Tensor]) -> list[bool]:
    """For each source, whether the graph leads from it to ``tensor``."""
    with_graph = [source for source in sources if source.requires_grad]
    if not with_graph:
        return [False] * len(sources)
    gradients = torch.autograd.grad(
        tensor.float().sum(), with_graph, retain_graph=True, allow_unused=True
    )
    connected = {
        id(source)
        for source, gradient in zip(with_graph, gradients, strict=True)
        if gradient is not None
    }
    return [id(source) in connected for source in sources]


@dataclass
class _Parts:
    """A block taken apart: its matrices sorted into attention and MLP."""

    name: str
    module: nn.Module
    stream: Tensor
    attention_output: Matrix | None
    mlp_matrices: list[nn.Module]

    @classmethod
    def of(cls, name: str, block: nn.Module, trial: _Trial) -> _Parts:
        """Take one block apart by what was seen of it in the trial."""
        stream = trial.inputs[block]
        within = set(block.modules())
        matrices = [m for m in trial.inputs if m in within and _is_matrix(m)]
        mixing = next(
            (m for m in matrices if _depends_on_positions(trial.inputs[m], stream, reader=-1)),
            None,
        )
        # A state-space mixer moves information between positions too, by convolutions among others.
        if mixing is None or any(isinstance(m, nn.Conv1d) for m in within):
            return cls(name, block, stream, None, matrices)
        feeds = _on_which_depends(trial.inputs[mixing], [trial.outputs[m] for m in matrices])
        # Attention mixes what matrices of its own gave, and writes to the stream. RWKV shifts its
        # tokens before any matrix; MobileBERT's attention works in a narrower stream.
        if not any(feeds) or trial.outputs[mixing].shape[-1] != stream.shape[-1]:
            return cls(name, block, stream, None, matrices)
        rest = [m for m, f in zip(matrices, feeds, strict=True) if m is not mixing and not f]
        return cls(name, block, stream, _describe_matrix(mixing, trial), rest)


def _describe_block(parts: _Parts, trial: _Trial) -> Block:
    n_hidden = parts.stream.shape[-1]
    taps = {
        "resid_pre": Tap(parts.module, "input"),
        "resid_post": Tap(parts.module, "output"),
    }
    widths = {"resid_pre": n_hidden, "resid_post": n_hidden}
    missing: dict[str, str] = {}

    attention = parts.attention_output
    if attention is None:
        missing["attn_out"] = missing["attn_z"] = "no attention was found in its blocks"
    else:
        taps["attn_out"] = Tap(attention.module, "output")
        taps["attn_z"] = Tap(attention.module, "input")
        widths["attn_out"], widths["attn_z"] = attention.n_outputs, attention.n_inputs

    mlp: Mlp | None = None
    mixture, n_experts = _find_mixture(parts, trial)
    if n_experts:
        missing["mlp_post"] = (
            f"a mixture of experts sends each token to some of its {n_experts} experts, "
            "so no neuron is computed for every token"
        )
        if mixture is None or trial.outputs[mixture].shape[-1] != n_hidden:
            missing["mlp_out"] = "no single module gives the output of its mixture of experts"
        else:
            taps["mlp_out"] = Tap(mixture, "output")
            widths["mlp_out"] = n_hidden
    else:
        mlp = _find_mlp(parts, trial, n_hidden)
        if mlp is None:
            missing["mlp_post"] = missing["mlp_out"] = "no MLP was found in its blocks"
        else:
            taps["mlp_post"] = Tap(mlp.output.module, "input")
            taps["mlp_out"] = Tap(mlp.output.module, "output")
            widths["mlp_post"], widths["mlp_out"] = mlp.n_neurons, n_hidden

    middle = _find_middle(parts, trial)
    if middle is None:
        missing["resid_mid"] = "its attention and MLP do not write to the residual stream in turn"
    else:
        taps["resid_mid"] = Tap(middle, "input")
        widths["resid_mid"] = n_hidden
    return Block(parts.name, parts.module, taps, widths, missing, mlp, attention)


def _find_mlp(parts: _Parts, trial: _Trial, n_hidden: int) -> Mlp | None:
    for output in reversed(parts.mlp_matrices):
        if trial.outputs[output].shape[-1] != n_hidden:
            continue
        others = [m for m in parts.mlp_matrices if m is not output]
        feeds = _on_which_depends(trial.inputs[output], [trial.outputs[m] for m in others])
        writers = [m for m, does in zip(others, feeds, strict=True) if does]
        n_neurons = trial.inputs[output].shape[-1]
        widths = [trial.outputs[m].shape[-1] for m in writers]
        fused = widths == [2 * n_neurons]
        # An adapter behind the MLP reads it, and with it matrices of other widths: go on before it.
        if fused or set(widths) == {n_neurons}:
            activation, gate = _find_activation(parts, writers, output, trial)
            return Mlp(
                inputs=tuple(_describe_matrix(m, trial) for m in writers),
                output=_describe_matrix(output, trial),
                n_neurons=n_neurons,
                fused=fused,
                activation=activation,
                gate=gate,
                adds_to_stream=_passes_unchanged(
                    trial.outputs[output], trial.outputs[parts.module]
                ),
            )
    return None


def _find_activation(
    parts: _Parts, writers: Sequence[nn.Module], output: nn.Module, trial: _Trial
) -> tuple[Callable[[Tensor], Tensor] | None, int]:
    """The function that turns the MLP's inputs to neurons, and which input it acts on.

    It is looked for among the block's modules without weights, and proved by its numbers.
    """
    neurons = trial.inputs[output].detach()
    given = [trial.outputs[m].detach() for m in writers]
    if len(given) == 1 and given[0].shape[-1] == 2 * neurons.shape[-1]:
        given = list(given[0].chunk(2, dim=-1))
    within = set(parts.module.modules())
    for module in trial.inputs:
        if module not in within or any(True for _ in module.parameters()) or len(given) > 2:
            continue
        for gate, inner in enumerate(given):
            if trial.inputs[module].shape[-1] != inner.shape[-1]:
                continue
            try:
                with torch.no_grad():
                    # A copy: some activations work in place.
                    expected = module(inner.clone())
            except Exception:
                # No function of one tensor, so not what is looked for.
                break
            if not isinstance(expected, Tensor):
                break
            if len(given) == 2:
                expected = expected * given[1 - gate]
            if expected.shape == neurons.shape and torch.allclose(
                expected.float(), neurons.float(), rtol=1e-3, atol=1e-5
            ):
                return module, gate
    return None, 0


def _passes_unchanged(source: Tensor, result: Tensor) -> bool:
    """Whether a change of ``source`` changes ``result`` by just as much."""
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(result.shape, generator=generator).to(result)
    (gradient,) = torch.autograd.grad(
        result, source, grad_outputs=probe, retain_graph=True, allow_unused=True
    )
    return gradient is not None and torch.allclose(
        gradient.reshape(-1).float(), probe.reshape(-1).float(), rtol=1e-3, atol=1e-4
    )


def _find_mixture(parts: _Parts, trial: _Trial) -> tuple[nn.Module | None, int]:
    """The module that holds a mixture of experts, and the number of experts (0: none).

    Experts are either stacked in parameters of three axes (expert, rows, columns), one of the last
    two as wide as the residual stream, or are the equal members of a module list that do not read
    one another.
    """
    n_hidden = parts.stream.shape[-1]
    holders: list[str] = []
    n_experts = 0
    for name, parameter in parts.module.named_parameters():
        holder_name = name.rpartition(".")[0]
        if (
            parameter.ndim == 3
            and parameter.shape[0] > 1
            and n_hidden in parameter.shape[1:]
            and not isinstance(parts.module.get_submodule(holder_name), nn.Conv1d)
        ):
            holders.append(holder_name)
            n_experts = parameter.shape[0]
    for name, module in parts.module.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) > 1:
            shapes = {tuple(p.shape for p in member.parameters()) for member in module}
            if len(shapes) == 1 and next(iter(shapes)) and not _run_in_turn(list(module), trial):
                holders.append(name)
                n_experts = len(module)
    if not n_experts:
        return None, 0
    top = holders[0].split(".")[0]
    holder = parts.module.get_submodule(top)
    return (None if isinstance(holder, nn.ModuleList) else holder), n_experts


def _run_in_turn(members: list[nn.Module], trial: _Trial) -> bool:
    """Whether each member reads what the one before it gave: a stack, as in MobileBERT."""
    return all(
        second in trial.inputs
        and first in trial.outputs
        and _on_which_depends(trial.inputs[second], [trial.outputs[first]])[0]
        for first, second in pairwise(members)
    )


def _find_middle(parts: _Parts, trial: _Trial) -> nn.Module | None:
    """The module that reads the stream between attention and MLP, before any norm of it.

    What attention adds to the stream is what its output projection gives, or a norm of that. A norm
    need not have a weight, so any module may be the one that reads the stream.
    """
    if parts.attention_output is None:
        return None
    attention = parts.attention_output.module
    start = parts.stream.detach().float().reshape(-1, parts.stream.shape[-1])
    # What the model's own type rounds off a sum: of a wide stream, more than attention adds to it.
    rounding = torch.finfo(parts.stream.dtype).eps
    within = set(parts.module.modules())
    order = [m for m in trial.inputs if m in within]
    later = order[order.index(attention) + 1 :]
    added = [trial.outputs[attention]]
    for module in later:
        tensor = trial.inputs[module].detach()
        if tensor.numel() != start.numel() or not tensor.is_floating_point():
            continue
        tensor = tensor.float().reshape(start.shape)
        for term in added:
            term = term.detach().float().reshape(start.shape)
            expected = start + term
            tolerance = 1e-2 * term.abs().max() + 1e-2 * term.abs() + rounding * expected.abs()
            # The stream itself, read beside attention, may be within the tolerance.
            if bool(((tensor - expected).abs() <= tolerance).all()) and not tensor.equal(start):
                return module
        if _is_norm(module) and trial.inputs[module] is trial.outputs[attention]:
            added.append(trial.outputs[module])
    return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
