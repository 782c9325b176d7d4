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

:func:`projector.model.architecture.finding.find_architecture` does it; what it gives stands in
:mod:`projector.model.architecture.records`.
"""
