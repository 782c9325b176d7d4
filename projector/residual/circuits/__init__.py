"""Circuits of attention heads from their weights, and compositions of two heads.

A head moves information between positions and transforms it. For a sequence x (T × H: T positions,
H features), its action is a single product: ``(A ⊗ B) x = A x Bᵀ``, where A (T × T) acts on
positions and B (H × H) on features. A head is ``A ⊗ W_OV``: its attention pattern A determines
between which positions information moves, and ``W_OV = W_O W_V`` how it is transformed. The pattern
is computed from ``x W_QK xᵀ`` with ``W_QK = W_Qᵀ W_K``. Two successive heads multiply in both
factors: ``(A₂ ⊗ W_OV₂)(A₁ ⊗ W_OV₁) = A₂A₁ ⊗ W_OV₂W_OV₁``, a *virtual head*.

After Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021).
"""
