"""Departures from the paper's circuit, by name; equations with an M are those of docs/science/method.md."""

from dataclasses import dataclass, fields

from eisnn.functional import EXACT, Division

TIGHTEST = 1000  # float32 keeps a weight's difference from its neighbours to 1e-4 then


@dataclass(frozen=True)
class CircuitOptions:
    """What a circuit does otherwise than the paper's; the default is the paper's.

    Equations of docs/science/method.md: exact balance (M9), (M10), semisaturation (M11), pooled division (M12), unit
    variance (M13), even gradients (M14), tightness (M15).

    Args:
        conserved: exact balance: each neuron's weights of a kind are shares of one conserved total, so that
            excitation and inhibition balance; the folded weights then get one norm, which leaves the balance but not
            the totals: weight standardization under Dale's law. The readout is balanced at the start and its gradients
            are centred.
        semisaturation: share of the expected divisive current that is a trainable constant `sigma` instead, in
            [0, 1); 0 divides by the current alone, stabilised. Needs `conserved`.
        pooled: one divisive current for all E neurons at a position, very nearly the mean activity in the
            receptive field. Needs `conserved`.
        tapwise: totals are conserved, and excitation and inhibition balance, at each position of the receptive field
            by itself, and so at the borders of a map too; in convolutions with at least 8 input channels. Needs
            `conserved`.
        tightness: 1 to 1,000; conserved totals are this many times those of E-I Init, around the same differences
            between weights: stronger excitation and inhibition cancel to the same current, and weights lie farther from
            0. At 1 a gradient step conserves a total by scaling weights, at many by shifting them. Needs `conserved`.
        unit_variance: E-I Init makes the integrated current's standard deviation 1 in each layer.
        start_rate: instead of that, E-I Init makes the neurons of each layer fire at this rate, spikes a step, in
            (0, 1); 0 leaves it. Of layers that end in a spiking neuron.
        even_gradients: E-I Init sets the width of each layer's surrogate, within a factor of 8, so that the gradient of
            the integrated current has the same norm in every layer; of layers that end in `LIF` or `PLIF`.
        division: how currents are divided, to train for hardware that only approximates it: the forward pass divides
            by shifts or a table, the gradient is that of exact division (straight-through).
    """

    conserved: bool = False
    semisaturation: float = 0.0
    pooled: bool = False
    tapwise: bool = False
    tightness: float = 1.0
    unit_variance: bool = False
    start_rate: float = 0.0
    even_gradients: bool = False
    division: Division = EXACT

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type is bool and not isinstance(getattr(self, field.name), bool):
                raise TypeError(f"{field.name} must be True or False, got {getattr(self, field.name)!r}")
        Division.check(self.division)
        if not 0 <= self.semisaturation < 1:
            raise ValueError(f"semisaturation is a share of the divisive current, in [0, 1); got {self.semisaturation}")
        if not 0 <= self.start_rate < 1:
            raise ValueError(f"start_rate is in spikes a step, in [0, 1); got {self.start_rate}")
        if self.start_rate and self.unit_variance:
            raise ValueError("unit_variance and start_rate both set the scale of the start: choose one of them")
        if not 1 <= self.tightness <= TIGHTEST:
            raise ValueError(
                f"tightness multiplies the conserved totals and is a number from 1 to {TIGHTEST}, beyond which float32 "
                f"loses the differences between weights; got {self.tightness}"
            )
        if (self.semisaturation or self.pooled or self.tapwise or self.tightness != 1) and not self.conserved:
            raise ValueError("semisaturation, pooled, tapwise and tightness need conserved=True")


PAPER = CircuitOptions()
"""The paper's circuit, without any departure. Layers have it unless told otherwise."""
PLUS = CircuitOptions(
    conserved=True, semisaturation=0.3, pooled=True, tapwise=True, unit_variance=True, even_gradients=True
)
"""Our best circuit, that of the recipes -plus. It has exact balance at each position of the receptive field, pooled
division, a semisaturation of 0.3, unit variance and even gradients. To change one of them:
`dataclasses.replace(eisnn.PLUS, semisaturation=0.1)`."""


def check_options(options: CircuitOptions) -> CircuitOptions:
    """`options`; TypeError if they are something else."""
    if not isinstance(options, CircuitOptions):
        raise TypeError(f"options must be eisnn.PLUS or eisnn.nn.CircuitOptions(...), got {options!r}")
    return options
