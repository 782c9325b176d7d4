"""What heads do by their weights, and what two heads do one after the other.

A head moves information between positions and turns it on the way. For a sequence x (T × H: T
positions, H features) its work is written as one product: ``(A ⊗ B) x = A x Bᵀ``, where A (T × T)
acts on positions and B (H × H) on features. A head is ``A ⊗ W_OV``: its attention pattern A says
from where to where, and ``W_OV = W_O W_V`` says what arrives of what is there. The pattern comes of
``x W_QK xᵀ`` with ``W_QK = W_Qᵀ W_K``. Two heads in a row multiply position by position and feature
by feature: ``(A₂ ⊗ W_OV₂)(A₁ ⊗ W_OV₁) = A₂A₁ ⊗ W_OV₂W_OV₁``, a *virtual head*.

After Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021).
"""
