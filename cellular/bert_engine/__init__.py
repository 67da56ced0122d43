"""The forward pass of BERT in C, for processors that multiply matrices of bfloat16 (AMX).

Texts lie one after the other, without padding, and each thread takes some of them through all layers, so that
a text's vector does not depend on the others, nor on the threads. All but the products is float32: attention,
GELU, normalisation, sums, pooling.

"bf16" rounds both factors of the products to bfloat16, but for the weights of the last attention: it
brings the mean cosine to vectors of fp32 to .99999. "bf16x2" splits every weight into the sum of two, and
multiplies twice. "fp32" splits the other factors too and multiplies three times: 16 bits of each factor where
fp32 has 24, at half the speed. Its cosine is 1 - 1e-10.
"""

from cellular.bert_engine.encoder import BertEncoder
from cellular.bert_engine.weights import Precision

__all__ = ["BertEncoder", "Precision"]
