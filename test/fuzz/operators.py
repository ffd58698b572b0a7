"""The expressions that programs are made of, as templates.

A field in braces is filled by the method of `Slots` (slots.py) of that name; {a} is a variable of
the table's dtype, and what the other fields give fits it. What plain torch refuses is drawn again.
"""

UNARY = """
sin() cos() tanh() sigmoid() exp().reciprocal() square() neg() abs() relu() sign() erf() atan()
sinh().tanh() asinh() expm1().clamp(-2,2) log1p().nan_to_num() square().add(1).log()
square().add(1).sqrt() square().add(1).rsqrt() square().add(1).lgamma() clamp(-1,0.5) clamp_min(0)
clamp(max=0.3) trunc() round() frac() logit(0.1) nan_to_num() detach() clone() contiguous() positive()
sinc() softmax({dim}) log_softmax({dim}) cumsum({dim}) logcumsumexp({dim}) tanh().cumprod({dim})
cummax({dim})[0] cummin({dim})[0] flip({dim}) flip({dims}) roll(1,{dim}) roll((1,2),(0,-1)) diff(dim={dim})
sort({dim})[0] sort({dim},descending=True)[0] topk(1,{dim})[0] renorm(2,{dim},1.0) rot90() fliplr()
tril() triu(1) deg2rad() detach().heaviside({b}.detach()) xlogy({b}.square()+1) float().double() double() to({a}.dtype)
i0()
"""
FUNCTIONAL = """
hardtanh gelu leaky_relu elu selu celu silu mish softplus softsign hardswish hardsigmoid relu6 logsigmoid
tanhshrink softshrink hardshrink
"""
BINARY = """
{a}+{b}; {a}-{b}; {a}*{b}; {b}*{a}; {a}/({b}.square()+1); {number}*{a}; {a}*{number}; {number}-{a}
{a}**2; {a}**3; {number}/({a}*{a}+1); ({a}.square()+1)**{b}.tanh(); {b}+{a}; 2**{a}.tanh()
torch.maximum({a},{b}); torch.minimum({b},{a}); torch.atan2({a},{b}); torch.hypot({a},{b})
torch.where({bool},{a},{b}); torch.where({a}>{b},{a},{b}); torch.where({bool},{a},{number}); torch.where({bool},{number},{a})
{a}.masked_fill({bool},{number}); {a}.masked_fill({bool},{b}.sum()); torch.lerp({a},{b},0.3); torch.lerp({a},{b},{same})
torch.addcmul({a},{b},{same}); torch.addcmul({a},{b},{same},value=0.5); torch.addcdiv({a},{b},{same}.square()+1)
torch.add({a},{b},alpha=2); torch.sub({a},{b},alpha=0.5); torch.rsub({a},{b}); torch.dist({a},{b})
{a}.clamp({b},{b}+1); torch.logaddexp({a},{b}); torch.copysign({a},{b}); torch.fmod({a},2); torch.remainder({a},1.5)
{a}+{int}; {int}*{a}; {a}*{boolean}; torch.nextafter({a},{b}); torch.float_power({a},2); {a}.sub({a}.mean({dim},keepdim=True))
{a}.mul({b}.sum()); {a}/{a}.abs().sum().add(1); torch.complex({a},{same}).abs(); torch.polar({a}.square(),{same}).real
F.mse_loss({a},{same}); F.l1_loss({a},{same},reduction='none'); F.smooth_l1_loss({a},{same}); F.huber_loss({a},{same},reduction='sum')
F.binary_cross_entropy_with_logits({a},{same}.sigmoid()); F.kl_div({a},{same}.sigmoid(),reduction='sum'); F.poisson_nll_loss({a},{same}.square())
F.gaussian_nll_loss({a},{same},{same}.square()+1); F.soft_margin_loss({a},{same}.detach().sign()); F.cosine_similarity({a},{same},dim={dim}); F.glu(torch.cat([{a},{same}],{dim}),{dim})
F.threshold({a},0.1,0.5); F.normalize({a},dim={dim}); F.pairwise_distance({a},{same}); F.prelu({a},{b}.sum().reshape(1)); F.softmin({a},{dim}); torch.special.xlog1py({a},{b}.square()); torch.special.erfcx({a}.abs()); torch.special.entr({a}.sigmoid()); torch.special.ndtr({a}); torch.special.log_ndtr({a})
"""
VIEWS = """
{a}.transpose({dim},{dim}); {a}.movedim({dim},{dim}); {a}.swapaxes({dim},{dim}); {a}.mT; {a}.unsqueeze({dim}); {a}.squeeze({dim}); {a}.squeeze()
{a}.select({dim},{at}); {a}[{at}]; {a}[...,{at}]; {a}[:,{at}]; {a}[None]; {a}[...,None]; {a}[1:]; {a}[:-1]; {a}[::2]; {a}[...,1:]
{a}[:,None,:1]; {a}[{at}:]; {a}.narrow({dim},0,1); {a}.narrow({dim},-1,1); {a}.flatten(); {a}.flatten(1); {a}.reshape(-1); {a}.view(-1)
{a}.reshape(1,-1); {a}.unflatten({dim},(-1,1)); {a}.unflatten({dim},(1,-1)); {a}.diagonal(); {a}.diagonal(1,{dim},{dim}); {a}.permute({perm})
{a}.expand(2,*{a}.shape); {a}.unsqueeze({dim}).expand_as({a}.unsqueeze({dim})); {a}[...,None].expand(*{a}.shape,2); {a}.unfold({dim},2,1); {a}.unfold({dim},1,2)
{a}.split(1,{dim})[-1]; {a}.chunk(2,{dim})[0]; {a}.unbind({dim})[{at}]; {a}.tensor_split(2,{dim})[-1]; {a}.split((1,{a}.shape[{dim0}]-1),{dim0})[1]
{a}.view_as({same}); {a}.reshape({a}.shape[::-1]); {a}.T; {a}.adjoint(); {a}.ravel(); {a}.expand_as({b}); {a}.broadcast_to({a}.shape); torch.broadcast_tensors({a},{b})[0]
torch.atleast_2d({a}); torch.atleast_3d({a}); {a}.swapdims(0,-1); {a}.contiguous().as_strided((2,),(1,)); {a}.clone(memory_format=torch.contiguous_format).as_strided((2,2),(1,1)); {a}.view({a}.shape); torch.ops.aten.alias({a})
{a}.real; {a}.conj(); {a}.movedim(0,-1); {a}.view(torch.int64).view({a}.dtype); torch.ops.aten.view_copy({a},[-1]); torch.ops.aten.slice_copy({a},0,1)
"""
REDUCTIONS = """
{a}.sum(); {a}.mean(); {a}.sum({dim}); {a}.mean({dims}); {a}.sum({dims},keepdim={keep}); {a}.prod({dim}); {a}.tanh().prod(); {a}.var({dim},unbiased=False)
{a}.std({dim},correction=0,keepdim={keep}); {a}.var(); {a}.norm(); {a}.norm(dim={dim}); {a}.norm(1,{dim}); torch.linalg.vector_norm({a},3,{dim}); torch.linalg.norm({a}); {a}.logsumexp({dim})
{a}.logsumexp({dims},keepdim={keep}); {a}.amax({dim}); {a}.amin({dims}); {a}.max(); {a}.max({dim})[0]; {a}.min({dim},keepdim={keep})[0]; {a}.median(); {a}.median({dim})[0]
{a}.nanmean({dim}); {a}.nansum({dim}); {a}.kthvalue(1,{dim})[0]; {a}.mode({dim})[0]; {a}.quantile(0.4); {a}.quantile(0.3,{dim}); torch.var_mean({a},{dim},correction=0)[0]; torch.std_mean({a},correction=0)[0]
torch.aminmax({a},dim={dim})[1]; {a}.trace(); {a}.cumsum({dim}).amax({dim}); torch.linalg.matrix_norm({a}); torch.trapezoid({a}); torch.cumulative_trapezoid({a}); {a}.sum(dtype=torch.float64); {a}.clone().nanmedian({dim})[0]
"""
JOINS = """
torch.cat([{a},{same}]); torch.cat([{a},{same},{a}],{dim}); torch.stack([{a},{same}],{dim}); torch.stack([{a},{same}]); torch.hstack([{a},{same}]); torch.vstack([{a},{same}]); torch.dstack([{a},{same}])
torch.column_stack([{a},{same}]); {a}.repeat(2,*[1]*{a}.dim()); {a}.tile(2); {a}.repeat_interleave(2,{dim}); {a}.repeat_interleave(torch.tensor([2]),{dim}); torch.block_diag({a},{same}); torch.meshgrid({a},{b},indexing='ij')[0]
torch.cartesian_prod({a},{b}); torch.combinations({a}); {a}.diag_embed(); {a}.diag(); torch.diagflat({a}); F.pad({a},(1,1)); F.pad({a},(1,0),value=0.5); F.pad({a},(-1,1)); torch.cat([{a}[None],{a}[None]],-1); torch.vander({a})
torch.cat([{a},{int}],{dim}); torch.cat([{a}.flatten(),{b}.flatten()]); torch.concat([{a},{same}],{dim}); F.pad({a}[None],(1,1),mode='reflect'); F.pad({a}[None],(1,1),mode='replicate'); F.pad({a}[None],(1,1),mode='circular')
"""
INDEXING = """
{a}[{index}]; {a}[...,{lastindex}]; {a}[{index},{index}]; {a}[:,{lastindex}]; {a}[{index},None]; {a}[{index}][None]; {a}[{index},...,{lastindex}]; {a}[{index}[:1]]; {a}.index_select({dim0},{index0})
{a}.gather({dim},{a}.argsort({dim})); {a}.take_along_dim({a}.argsort({dim}),{dim}); {a}.take({int}%{a}.numel()); {a}.gather({dim0},{same}.argsort({dim0})); torch.take_along_dim({a},{a}.argmax({dim0},keepdim=True),{dim0})
{a}.scatter({dim0},{a}.argsort({dim0}),{same}); {a}.scatter({dim0},{same}.argsort({dim0}),{number}); {a}.scatter_add({dim0},{same}.argsort({dim0})//2,{same}); {a}.scatter_reduce({dim0},{a}.argsort({dim0})//2,{same},'sum')
{a}.scatter_reduce({dim0},{a}.argsort({dim0}),{same},'amax'); {a}.scatter_reduce({dim0},{a}.argsort({dim0}),{same},'mean',include_self=False); {a}.index_add(0,{index},{b}.expand({index}.shape[0],*{a}.shape[1:])); {a}.index_fill(0,{index},{number})
{a}.index_copy(0,{a}.reshape({a}.shape[0],-1).sum(1).argsort(),{same}); {a}.index_put(({index},),{b}.sum(),accumulate=True); {a}.index_put(({a}.reshape({a}.shape[0],-1).sum(1).argsort(),),{same}); {a}.masked_scatter({a}>0.1,{same})
{a}.select_scatter({b}.sum().expand({a}[0].shape),0,{at}); {a}.slice_scatter({same}[:1],0,0,1); {a}.diagonal_scatter({a}.diagonal().sin()); {a}.index_reduce(0,{index},{b}.expand({index}.shape[0],*{a}.shape[1:]),'amax')
{a}[torch.arange(1)]; {a}[[0]]; {a}[torch.tensor([0,-1])]; {a}[{a}.flatten().argmax()%{a}.shape[0]]; {a}[0,{lastindex}]; {a}[None,{index}]; F.embedding({index},{a}); F.embedding({index}[None],{a}.reshape({a}.shape[0],-1)); {a}.gather({dim0},{index}.reshape(-1,*[1]*({a}.dim()-1)))
torch.searchsorted({a}.sort()[0],{b}.expand({a}.shape).contiguous()).to({a}.dtype); torch.bucketize({a},torch.tensor([-0.5,0.5],dtype=torch.float64)).double(); {a}[{bool}.expand({a}.shape)].sum(); {a}.where({bool},{a}[{index}].sum()); F.one_hot({index},4)*{a}.sum()
"""
LINEAR = """
{m23}@{m32}; {m23}@{v3}; {v3}@{m32}; torch.mm({m23},{m32}); torch.mv({m23},{v3}); torch.dot({v3},{v3}); torch.outer({v3},{v2}); torch.bmm({t223},{t232}); torch.matmul({t223},{m32}); torch.matmul({m23},{t232})
torch.einsum('ij,jk->ik',{m23},{m32}); torch.einsum('bij,bjk->bi',{t223},{t232}); torch.einsum('i,i->',{v3},{v3}); torch.einsum('ij->ji',{m23}); torch.einsum('ii->i',{m22}); torch.addmm({m22},{m23},{m32}); torch.addmv({v2},{m23},{v3},beta=0.5)
torch.baddbmm({m22},{t223},{t232}); torch.addbmm({m22},{t223},{t232}); torch.addr({m23},{v2},{v3}); torch.tensordot({m23},{m32},1); torch.tensordot({t223},{t223},([0,2],[1,2])); torch.kron({m22},{v2}); torch.kron({v2},{v3}); torch.inner({m23},{v3}); torch.cross({v3},{v3},dim=0)
torch.linalg.cross({m23},{v3}); torch.linalg.multi_dot([{m23},{m32},{v2}]); torch.chain_matmul({m23},{m32}); torch.cdist({m23},{m23}); torch.cov({m23}); torch.corrcoef({m23}); torch.linalg.det({inv}); torch.linalg.slogdet({inv})[1]; torch.logdet({spd}); torch.linalg.inv({inv})
torch.linalg.solve({inv},{v2}); torch.linalg.solve({inv},{m23}); torch.linalg.cholesky({spd}); torch.linalg.eigvalsh({spd}); torch.linalg.svdvals({m23}); torch.linalg.qr({inv})[1].abs(); torch.linalg.matrix_exp({m22}.tanh()); torch.linalg.pinv({m23}); torch.linalg.matrix_power({m22},2)
torch.linalg.lstsq({m32},{m32}).solution; torch.linalg.solve_triangular({inv}.triu(),{m23},upper=True); torch.cholesky_solve({m23},torch.linalg.cholesky({spd})); torch.linalg.lu_factor({inv})[0]; torch.linalg.lu({inv})[2]; torch.linalg.eigh({spd})[0]; torch.linalg.svd({m23})[1]; torch.triangular_solve({m23},{inv}.tril(),upper=False)[0]
torch.linalg.eigh({spd})[1].abs(); torch.linalg.tensorinv({inv}); torch.linalg.vecdot({m23},{v3}); torch.linalg.matrix_norm({m23},'nuc'); torch.linalg.cond({inv}); torch.linalg.inv_ex({inv})[0]; torch.linalg.eigvals({inv}.nan_to_num()).abs().sum(); torch.linalg.vander({v3}); torch.trace({m22})
F.linear({m23},{m23}); F.linear({v3},{m23},{v2}); F.linear({t223},{m23},{v2}); F.bilinear({m22},{m23},{t223}); F.bilinear({v2},{v3},{t223},{v2})
"""
LAYERS = """
F.conv1d({t124},{t222}[:,:1]); F.conv1d({t224},{t222},{v2},padding=1); F.conv1d({t224}[0],{t222}); F.conv1d({t224},{t222}[:,:1],groups=2); F.conv1d({t224},{t222},stride=2); F.conv1d({t224},{t222},dilation=2); F.conv1d({t224},{t223},padding='same')
F.conv2d({t144}[None],{t222}[:,None]); F.conv2d({t144},{t222}[:,None],{v2},padding=1); F.conv2d({t244}[None],{t222}[None],stride=2); F.conv2d({t244}[:,None],{t222}[:1,None],dilation=(1,2)); F.conv3d({t222}[None,None],{t222}[None,None]); F.conv2d({t244}[None],{t222}[:,None],groups=2)
F.conv_transpose1d({t224},{t222}); F.conv_transpose2d({t144}[None],{t222}[:1,None],stride=2); F.conv_transpose1d({t224}[0],{t222},{v2},padding=1); F.avg_pool1d({t224},2); F.avg_pool2d({t144},2,padding=1); F.max_pool1d({t224},2); F.max_pool2d({t144},2); F.max_pool2d({t144}[None],2,1); F.adaptive_avg_pool1d({t224},3)
F.adaptive_avg_pool2d({t144},2); F.adaptive_max_pool1d({t224},2); F.lp_pool1d({t224},2,2); F.interpolate({t224},scale_factor=2); F.interpolate({t144}[None],size=(3,3),mode='bilinear'); F.interpolate({t224},size=3,mode='linear',align_corners=True); F.unfold({t144}[None],2); F.fold({m44}[None],(3,3),2); F.pixel_shuffle({t422}[None],2)
F.layer_norm({m23},(3,),{v3},{v3}); F.layer_norm({m23},(2,3)); F.group_norm({t224},2,{v2},{v2}); F.group_norm({t224},1); F.instance_norm({t224}); F.batch_norm({m23},None,None,{v3},{v3},True); F.batch_norm({t224},None,None,training=True); F.batch_norm({m23},{v3}.detach(),{v3}.detach().square()+1,{v3}); F.rms_norm({m23},(3,),{v3}); F.local_response_norm({t224},2)
F.cross_entropy({m23},{class2}); F.cross_entropy({m23},{class2},reduction='none'); F.cross_entropy({m23},{m23}.softmax(1)); F.cross_entropy({m23},{class2},{v3}.detach().square()+1); F.nll_loss({m23},{class2}); F.nll_loss({t224},{class24},reduction='sum'); F.cross_entropy({v3},{class2}[0]); F.cross_entropy({m23},{class2},label_smoothing=0.1); F.multi_margin_loss({m23},{class2})
F.margin_ranking_loss({v3},{v3},{v3}.sign()); F.triplet_margin_loss({m23},{m23},{m23}); F.cosine_embedding_loss({m23},{m23},{v2}.sign()); F.hinge_embedding_loss({v3},{v3}.sign()); F.embedding({class2},{m32}); F.embedding_bag({class2}[None],{m32}); F.grid_sample({t144}[None],{t222}[None].tanh()); F.affine_grid({m23}[None],(1,1,2,2)); F.multilabel_soft_margin_loss({m23},{m23}.sigmoid())
F.scaled_dot_product_attention({t223},{t223},{t223}); F.scaled_dot_product_attention({t223},{t223},{t223},is_causal=True); F.scaled_dot_product_attention({t223},{t223},{t223},{m22}); torch.fft.fft({v3}).abs(); torch.fft.rfft({m23}).real; torch.fft.irfft(torch.complex({v3},{v3})); torch.fft.fft2({m23}).imag; torch.fft.ifft({t223},dim={smalldim}).real
torch.stft({m44}.flatten(),4,return_complex=True,window=torch.ones(4,dtype=torch.float64)).abs(); F.pixel_unshuffle({t144}[None],2); F.channel_shuffle({t422}[None],2); F.rrelu({m23}); F.max_unpool1d(*F.max_pool1d({t224},2,return_indices=True),2)
"""
MAKERS = """
torch.zeros({shape},dtype=torch.float64); torch.ones({shape},dtype=torch.float64); torch.full({shape},0.5,dtype=torch.float64); torch.eye(2,dtype=torch.float64); torch.arange(3.0,dtype=torch.float64); torch.linspace(-1,1,3,dtype=torch.float64); torch.tensor([0.3,-0.2,0.9],dtype=torch.float64)
torch.zeros_like({a}); torch.ones_like({a}); torch.full_like({a},0.2); {a}.new_zeros({shape}); {a}.new_ones(2); {a}.new_full((2,),0.1); torch.empty_like({a}).fill_(0.4); torch.empty({shape},dtype=torch.float64).zero_(); {a}.new_tensor([0.5,-0.5]); torch.scalar_tensor(0.5,dtype=torch.float64); torch.tensor(0.7,dtype=torch.float64); torch.eye(3,dtype=torch.float64)
"""
INTEGERS = """
{a}.argmax(); {a}.argmax({dim}); {a}.argmin({dim},keepdim={keep}); {a}.argsort({dim}); {a}.max({dim})[1]; {a}.sort({dim})[1]; ({a}*3).long(); ({a}*3).round().to(torch.int32); {a}.sign().long(); {a}.count_nonzero(); {a}.count_nonzero({dim}); torch.arange({a}.numel()); torch.arange(3); torch.tensor([1,0,2]); {a}.topk(1,{dim})[1]
torch.bucketize({a},torch.tensor([-0.5,0.5],dtype=torch.float64)); torch.full((2,),3); {a}.shape[0]*torch.ones(2,dtype=torch.long); {a}.gt(0).sum(); {a}.gt(0).cumsum({dim}); torch.histc({a},3).long(); ({a}>0).long().bincount(minlength=2) if {a}.dim()==1 else ({a}>0).int(); torch.tril_indices(2,2); {a}.bool().nonzero_static(size=2); {a}.cummax({dim})[1]
"""
ON_INTEGERS = """
{a}+{a}; {a}*2; {a}%3; {a}//2; -{a}; {a}.abs(); {a}.sum(); {a}.sum({dim}); {a}.prod({dim}); {a}.cumsum({dim}); {a}.amax({dim}); {a}&1; {a}|2; {a}^{a}.flip(0); ~{a}; {a}<<1; {a}>>1; {a}.clamp(0,2); {a}.sort({dim})[0]; {a}.flip({dim}); {a}.T; {a}[{at}]; {a}[None]; torch.gcd({a},{a}+4); torch.where({a}>1,{a},0)
F.one_hot({a}.abs()%3,3); {a}.reshape(-1); {a}.max({dim})[0]; {a}.eq(1).long(); torch.stack([{a},{a}]); torch.cat([{a},{a}],{dim}); {a}.argsort(stable=True); {a}.to(torch.int32); {a}.to(torch.int8); {a}.double().long(); {a}.diff(); {a}.roll(1,{dim}); {a}.unsqueeze({dim}); {a}.expand(2,*{a}.shape); {a}.div(2,rounding_mode='floor'); {a}.fmod(2); {a}.trace()
"""
BOOLEANS = """
{a}>0; {a}<{b}; {a}>={b}; {a}.eq({b}); {a}.ne(0); {a}.gt(0.1); {a}.isnan(); {a}.isfinite(); torch.isclose({a},{b}); {a}.bool(); {a}.gt(0).any({dim}); {a}.gt(0).all(); {a}.gt(0).logical_not(); {a}.gt(0)&{b}.gt(0); {a}.gt(0)|{b}.gt(0); {a}.gt(0)^{b}.lt(0.2); {a}.signbit(); torch.ones(2,dtype=torch.bool); {a}.gt(0).any()
torch.isin({a}.round(),torch.tensor([0.0,1.0],dtype=torch.float64)); {a}.gt(0).flip(0); {a}.gt(0).all({dim},keepdim={keep}); torch.logical_xor({a}>0,{b}>0)
"""
COMPLEX = """
torch.complex({a},{same}); {a}.to(torch.complex128); {a}+1j; {a}*(1+2j); torch.polar({a}.square(),{same}); torch.fft.fft({a}); torch.fft.rfft({a},dim={dim}); torch.view_as_complex(torch.stack([{a},{same}],-1)); {a}*1j
"""
ON_COMPLEX = """
{a}+{a}.conj(); {a}*{a}; {a}.conj(); {a}.sin(); {a}.exp()/({a}.abs().exp()+1); {a}.sum({dim}); {a}.mean(); {a}*1j; {a}/2; {a}.T; {a}.mH; {a}[{at}]; {a}.conj()*{a}.flip(0); torch.fft.ifft({a},dim={dim}); {a}.tanh(); {a}.cumsum({dim}); torch.cat([{a},{a}.conj()],{dim}); {a}.resolve_conj(); {a}.square(); {a}@{a}.mH; torch.vdot({a},{a}); torch.view_as_complex(torch.view_as_real({a}.resolve_conj()))
{a}.unsqueeze({dim}); {a}.reshape(-1); {a}.sgn(); {a}.conj().T.contiguous(); {a}.conj().sin(); {a}.neg().conj(); {a}.index_select(0,torch.tensor([0])); {a}.clone(); {a}.expand(2,*{a}.shape); torch.where({a}.real>0,{a},{a}.conj()); {a}.pow(2); {a}.masked_fill({a}.imag>0,0.5); {a}.prod(); {a}.flip({dim})
"""
FROM_COMPLEX = """
{a}.real; {a}.imag; {a}.abs(); torch.view_as_real({a}.resolve_conj()); {a}.conj().imag; {a}.conj().real; ({a}*{a}.conj()).real; {a}.angle(); torch.linalg.vector_norm({a}); {a}.abs().square(); torch.view_as_real({a}.conj().resolve_conj())[...,1]; {a}.isfinite().double()
"""
RANDOM = """
torch.rand({shape},dtype=torch.float64); torch.randn({shape},dtype=torch.float64); torch.rand_like({a}); torch.randn_like({a}); F.dropout({a},0.5); torch.bernoulli({a}.sigmoid()); torch.randperm(3); torch.randint(0,3,(2,)); torch.normal({a},1.0); {a}.clone().uniform_(); F.dropout1d({t224},0.5); torch.multinomial(torch.ones(3),2); {a}.detach().clone().normal_(); F.rrelu({a},training=True)
"""
WRITES = """
{w}.add_({into}); {w}.mul_({into}); {w}.copy_({into}); {w}.sub_({into},alpha=2); {w}+={into}; {w}.zero_(); {w}.fill_({number}); {w}.sin_(); {w}.clamp_(-1,1); {w}.neg_(); {w}[0]={part}; {w}[{wat}]+={part}; {w}[...,0]={number}; {w}[...,-1].mul_(2); {w}[:1]={part}; {w}.div_({into}.square()+1)
{w}[{windex}]={part}; {w}[{wbool}]={number}; {w}.masked_fill_({wbool},{number}); {w}.masked_fill_({wbool},{into}.sum()); {w}.index_add_(0,torch.tensor([0,-1])%{w}.shape[0],{part}.expand(2,*{w}.shape[1:])); {w}.index_fill_(0,torch.tensor([0]),{into}.sum()); {w}.scatter_(0,{w}.argsort(0),{into}.expand({w}.shape)); {w}.scatter_add_(0,{w}.argsort(0)//2,{into}.expand({w}.shape))
{w}.diagonal().add_({into}.sum()); {w}.T.mul_(2); {w}.view(-1)[0]={into}.sum(); {w}.select(0,-1).copy_({part}); {w}.unsqueeze(0).add_({into}.sum()); {w}.index_put_((torch.tensor([0]),),{part},accumulate=True); {w}.tril_(); {w}.addcmul_({into},{into}); {w}.lerp_({into}.expand({w}.shape),0.3); {w}.mul_({w}.sum()); {w}.relu_(); {w}.masked_scatter_({wbool},{into}.expand({w}.shape).clone())
{w}.squeeze_(); {w}.unsqueeze_(0); {w}.t_(); {w}.transpose_(0,-1); {w}.swapaxes_(0,-1); {w}.tanh_(); {w}.narrow(0,0,1).mul_({into}.sum()); {w}.exp_().reciprocal_(); {w}.index_copy_(0,torch.tensor([0]),{part}.expand({w}.shape[1:])[None]); {w}.put_(torch.tensor([0]),{into}.sum().reshape(1)); {w}.fill_diagonal_(0.5); {w}.cumsum_(0)
"""


def _split(table: str) -> list[str]:
    parts = (each.strip() for line in table.splitlines() for each in line.split(";"))
    return [each for each in parts if each]


# The tables by the dtype of {a}: how often each is drawn, and its expressions.
FLOAT = {
    "unary": (4, ["{a}." + each for each in UNARY.split()]),
    "functional": (1, [f"F.{each}({{a}})" for each in FUNCTIONAL.split()]),
    "binary": (5, _split(BINARY)),
    "view": (4, _split(VIEWS)),
    "reduction": (3, _split(REDUCTIONS)),
    "join": (2, _split(JOINS)),
    "indexing": (4, _split(INDEXING)),
    "linear": (4, _split(LINEAR)),
    "layer": (3, _split(LAYERS)),
    "maker": (2, _split(MAKERS)),
    "integer": (1.5, _split(INTEGERS)),
    "boolean": (1, _split(BOOLEANS)),
    "complex": (1, _split(COMPLEX)),
}
INTEGER = _split(ON_INTEGERS)
COMPLEX_TO_COMPLEX = _split(ON_COMPLEX)
COMPLEX_TO_REAL = _split(FROM_COMPLEX)
RANDOM_NUMBERS = _split(RANDOM)
IN_PLACE = _split(WRITES)
