"""What the sweep over modules knows in advance, each with the reason."""

from test.opinfo.known import NO_RULE, WRITES, Reason, rows

HIDDEN = Reason(
    "PyTorch's cell adds, in place, what differs to what the shared hidden state gives",
    "add_.Tensor would write in-place",
)
ROWS = Reason("it has random samples for several images, but gets one without such a dimension")

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
    **rows(
        HIDDEN,
        ["vmap in training", "vmap"],
        "nn.LSTM",
        "nn.RNN",
    ),
}
LOOPS = {
    **rows(
        NO_RULE,
        ["vmap in training", "vmap"],
        "nn.CTCLoss",
    ),
    **rows(
        NO_RULE,
        [
            "vmap in training",
            "vmap",
            "gradients in training",
            "gradients",
            "ensemble in training",
            "ensemble",
        ],
        "nn.Transformer",
        "nn.TransformerDecoderLayer",
        "nn.TransformerEncoder",
        "nn.TransformerEncoderLayer",
    ),
}
WRONG = {
    **rows(
        ROWS,
        ["vmap in training", "vmap"],
        "nn.FractionalMaxPool3d",
    ),
}
