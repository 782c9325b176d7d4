"""What a transformer is made of, found from what its modules do and not from their names.

The model is run once on a few tokens with autograd on, and every weight matrix, block and norm is
recorded. The graph then shows which is which:

- the blocks are the module list in which each member reads and returns the residual stream;
- a block's attention output projection is its first matrix whose input at one position depends on
  other positions, because only attention moves information between positions; it reads the outputs
  of other matrices, and is as wide as the residual stream;
- the matrices that this projection depends on belong to the attention; of the remaining matrices,
  the last one that is as wide as the residual stream is the MLP's output projection, and those it
  depends on are the MLP's input matrices.

Call :func:`projector.model.architecture.finding.find_architecture`; its results are the classes in
:mod:`projector.model.architecture.records`.
"""
