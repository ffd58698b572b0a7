"""What the sweep over modules knows in advance, each with the reason."""

from test.opinfo.known import WRITES, rows

# (module, mode and whether in training): why
ERRORS = {
    # an ensemble has running statistics for each member
    **rows(
        WRITES,
        ["vmap in training", "gradients in training"],
        "nn.BatchNorm1d",
        "nn.BatchNorm2d",
        "nn.BatchNorm3d",
    ),
    **rows(
        WRITES,
        ["vmap in training"],
        "nn.InstanceNorm1d",
        "nn.InstanceNorm2d",
        "nn.InstanceNorm3d",
    ),
}
LOOPS = {}
WRONG = {}
