"""The Video Swin Transformer: window functions, layers, backbone and classifier.

Letters in shape comments: `B` batch, `V` views, `T H W` frames, rows, columns (the token grid inside the
model), `C` channels, `K` classes, `nW` windows, `N = Wt*Wh*Ww` tokens per window, `nH` heads, `d = C/nH`.
"""
