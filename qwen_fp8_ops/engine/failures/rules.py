"""The rules, in order: the first that sees its signs names the cause.

What the host says comes first, for a lost GPU or a killed process makes the others complain of NCCL and time-outs. Then memory, then
what can never start, then what follows from something else. Texts of vLLM 0.32 and 0.33, torch 2.8 to 2.13, NCCL 2.27, Linux 5 and 6.
"""

from __future__ import annotations

from qwen_fp8_ops.engine.failures import host_signs as host
from qwen_fp8_ops.engine.failures.log_signs import file_damaged, killed, nothing_else, port_taken, says, stalled, together
from qwen_fp8_ops.engine.failures.rule import Rule
from qwen_fp8_ops.engine.failures.scene import OUT_OF_MEMORY
from qwen_fp8_ops.engine.failures.ways import arguments_left, by, each, half, kv_cache_that_fits, more_job_memory, to, told, what_is_free

NEVER, AGAIN = False, True

PLAN = "qwen-fp8 plan"
REPAIR = "qwen-fp8 verify --repair"
SET_UP = "python3 scripts/setup_venv.py"
ANOTHER_NODE = "Or end the job and ask for another node: add --exclude=$(hostname -s) to the salloc line, and tell the administrators."
SHM = "/dev/shm"  # noqa: S108 - named, not written

FULL = OUT_OF_MEMORY.pattern
ROOM = "more memory stays free beside the weights and the KV cache"

HOST_RULES: tuple[Rule, ...] = (
    Rule(
        "time-limit",
        host.time_is_up,
        "the time limit of the SLURM job was reached and SLURM ended it",
        NEVER,
        to("SLURM_AT_END", "requeue", "SLURM starts the job again when its time is up"),
        "Or ask for more time with SLURM_TIME.",
    ),
    Rule(
        "host-oom",
        host.kernel_out_of_memory,
        "the kernel killed {name}: the host, or the job's share of it, ran out of memory",
        AGAIN,
        more_job_memory,
        "See what else takes memory there:\nps aux --sort=-rss | head",
    ),
    Rule(
        "gpu-broken",
        host.xid(host.BROKEN_GPU),
        "the GPU at PCI {bus} failed: {meaning} (Xid {xid})",
        NEVER,
        fix=f"qwen-fp8 gpus\nIt needs a reset (root, nothing running on it):\nnvidia-smi --gpu-reset\n{ANOTHER_NODE}",
    ),
    Rule(
        "gpu-fault",
        host.xid(host.FAILED_PROGRAM),
        "the GPU at PCI {bus} reports {meaning} (Xid {xid})",
        AGAIN,
        fix=f"If it comes again:\nqwen-fp8 gpus\n{ANOTHER_NODE}",
    ),
)

MEMORY_RULES: tuple[Rule, ...] = (
    Rule(
        "gpu-memory-beside-cache",
        says(
            r"Free memory on device (?P<device>\S+) \([\d.]+/[\d.]+ GiB\) on startup is less than the engine's budget after excluding"
            r"|Externally held weights on device (?P<full>\S+) .* exceed"
        ),
        "beside the weights in the cache, {device}{full} has too little memory for what GPU_MEMORY_UTIL wants",
        AGAIN,  # a process that has ended gives its memory back late
        by("GPU_MEMORY_UTIL", -0.02, "the cache's own process needs memory, too"),
        "qwen-fp8 gpus",
        planned=True,
    ),
    Rule(
        "gpu-memory-not-free",
        host.memory_not_free,
        "{device} has {free} of {total} GiB free, less than GPU_MEMORY_UTIL wants; {who}",
        AGAIN,  # a process that has ended gives its memory back late (vLLM issue 20305)
        what_is_free,
        "{look}",
        planned=True,
    ),
    Rule(
        "gpu-memory-moved",
        says(r"Error in memory profiling"),
        "another process gave memory of a GPU back while the engine measured it",
        AGAIN,
        fix="qwen-fp8 gpus",
    ),
    Rule("gpu-memory-taken", host.memory_taken, "a GPU's memory ran out, and another process has a part of it: {who}", AGAIN, fix="{look}"),
    Rule(
        "cuda-oom-load",
        says(FULL, only=lambda scene: scene.stage == "load"),
        "a GPU's memory ran out while the engine loaded the weights",
        NEVER,
        to("MM_ENCODER_TP_MODE", "weights", "the vision tower is split over the GPUs"),
        PLAN,
        planned=True,
    ),
    Rule(
        "cuda-oom-profile",
        says(FULL, only=lambda scene: scene.stage == "profile"),
        "a GPU's memory ran out in the largest step that the engine tries before it serves",
        NEVER,
        each(half("MAX_NUM_BATCHED_TOKENS", 1024, "a step takes fewer tokens"), half("MAX_IMAGES", 1, "fewer images at once")),
        PLAN,
    ),
    Rule(
        "cuda-oom-warm-up",
        says(FULL, only=lambda scene: scene.stage == "warm-up"),
        "a GPU's memory ran out in the warm-up, after the KV cache was taken",
        NEVER,
        each(by("GPU_MEMORY_UTIL", -0.05, ROOM), half("MAX_NUM_SEQS", 1, "fewer requests at the same time"), to("ENFORCE_EAGER", "on", "no CUDA graphs")),
        PLAN,
        planned=True,
    ),
    Rule(
        "cuda-oom-serving",
        says(FULL, only=lambda scene: scene.stage == "serving"),
        "a GPU's memory ran out while it served",
        AGAIN,
        each(
            by("GPU_MEMORY_UTIL", -0.05, ROOM),
            half("MAX_IMAGES", 1, "fewer images in one request"),
            half("MAX_NUM_BATCHED_TOKENS", 1024, "a step takes fewer tokens"),
        ),
        "See which requests ran then:\nqwen-fp8 logs --audit",
        planned=True,
    ),
    Rule(
        "no-kv-cache-memory",
        says(r"No available memory for the cache blocks"),
        "weights and activations leave no memory for the KV cache",
        NEVER,
        each(
            by("GPU_MEMORY_UTIL", 0.05, "more of each GPU's memory"),
            half("MAX_NUM_BATCHED_TOKENS", 1024, "activations take less"),
            to("MM_ENCODER_TP_MODE", "weights", "the vision tower is split over the GPUs"),
        ),
        PLAN,
        planned=True,
    ),
    Rule(
        "context-beyond-kv-cache",
        says(
            r"max seq len \((?P<asked>\d+)\), \((?P<needed>[\d.]+) GiB KV cache is needed, .* memory \((?P<room>-?[\d.]+) GiB\)\."
            r"(?:.* estimated maximum model length is (?P<longest>[\d,]+))?"
        ),
        "one request of MAX_MODEL_LEN={asked} needs {needed} GiB of KV cache, and {room} GiB are there",
        NEVER,
        told("MAX_MODEL_LEN", "longest", "the engine's own estimate of what fits"),
        PLAN,
        planned=True,
    ),
    Rule(
        "context-beyond-model",
        says(r"max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len \(\w+=(?P<longest>\d+)"),
        "MAX_MODEL_LEN={asked} is more than the model was made for",
        NEVER,
        told("MAX_MODEL_LEN", "longest", "the longest that the model knows"),
    ),
    Rule(
        "host-memory-not-free",
        says(
            r"Available memory on node \d+ \((?P<free>[\d.]+)/[\d.]+ GiB\) on kv cache allocation is less than requested memory for kv \((?P<asked>[\d.]+) GiB\)"
        ),
        "the KV cache wants {asked} GiB of host memory, and {free} GiB are free",
        NEVER,
        kv_cache_that_fits,
        PLAN,
    ),
)

MODEL_RULES: tuple[Rule, ...] = (
    Rule(
        "fp8-blocks",
        says(r"(?P<width>\d+) is not divisible by weight quantization block_[nk] = (?P<block>\d+)"),
        "the experts' slice of {width} on each GPU is no whole number of {block}-blocks, which the FP8 weights are scaled by",
        NEVER,
        each(to("EXPERT_PARALLEL", "on", "whole experts on each GPU"), to("TENSOR_PARALLEL_SIZE", 4, "a slice of 384 is three blocks")),
    ),
    Rule(
        "dtype-float16",
        says(r"Supports only output dtype of bfloat16|Only bfloat16/float32 output dtype supported|requires bfloat16 output dtype"),
        "no kernel for the FP8 weights takes the activations' type",
        NEVER,
        to("DTYPE", "bfloat16", "the checkpoint's own"),
    ),
    Rule(
        "moe-backend",
        says(r"(?P<which>FP8 MoE backend '?\S+?'?|No FP8 MoE backend) (?:does not support|supports) the deployment configuration"),
        "{which} cannot run the experts in this layout",
        NEVER,
        to("EXPERT_PARALLEL", "on", "whole experts on each GPU, which every backend takes"),
        "Leave the choice to vLLM:\nunset VLLM_USE_DEEP_GEMM VLLM_MOE_USE_DEEP_GEMM VLLM_USE_FLASHINFER_MOE_FP8\nTake --moe-backend out of VLLM_EXTRA_ARGS.",
    ),
    Rule(
        "weight-cache-unsupported",
        says(r"does not support (?:CUDA IPC weight sharing|loading from pre-processed weights|pre-processed weights)|weights from the cache leave (?P<name>\S+) without memory"),
        "weights cannot be kept in GPU memory here",
        NEVER,
        to("WEIGHT_CACHE", "off", "each start reads the weights"),
    ),
    Rule(
        "weight-cache-mismatch",
        says(r"WeightCacheKey mismatch on fields: \[(?P<fields>[^\]]*)|Daemon GPU \S+ != engine GPU"),
        "the weight cache holds other weights than the engine wants: {fields}",
        AGAIN,  # with a cache that is started anew
        fix="Was vLLM or the model changed meanwhile? Then all of it must start again:\nqwen-fp8 restart",
    ),
    Rule(
        "weight-cache-socket",
        says(r"Socket directory (?P<folder>\S+) is (?:not owned by the current user|group/world accessible)|Refusing to use symlinked socket directory (?P<link>\S+)"),
        "the weight cache's folder {folder}{link} is not this user's alone",
        NEVER,
        fix="Whose is it, and what is in it? It can be removed when nothing of yours runs:\nls -ld /tmp/qfp8-*",
    ),
    Rule(
        "weight-cache-lost",
        says(r"WeightCacheUnavailableError|Weight cache daemon did not become ready|Cannot (?:connect to|query) weight cache daemon|Socket closed while receiving message"),
        "the weight cache did not hand out its weights",
        AGAIN,
        to("WEIGHT_CACHE", "off", "each start reads the weights"),
    ),
    Rule(
        "shard-missing",
        says(
            r"Weight files referenced in index but missing: \{?(?P<files>[^}]*)|Cannot find any model weights with `?(?P<folder>[^`]*)|No such file or directory: '?(?P<file>[^']*\.safetensors)"
        ),
        "weights are missing: {files}{folder}{file}",
        NEVER,
        fix=REPAIR,
    ),
    Rule(
        "shard-damaged",
        file_damaged(
            r"SafetensorError|safetensors_rust|The size of tensor a .* must match|Attempted to load weight|not initialized from checkpoint|header too (?:large|small)"
        ),
        "a file of the weights is damaged: {files}",
        NEVER,
        fix=REPAIR,
    ),
    Rule(
        "model-file-damaged",
        file_damaged(r"JSONDecodeError|Expecting .* delimiter: line|Expecting value: line|is not a valid JSON file|Unterminated string starting"),
        "a file beside the weights is damaged: {files}",
        NEVER,
        fix=REPAIR,
    ),
    Rule(
        "model-missing",
        says(r"Repo id must be in the form .*?: '(?P<path>[^']*)'|Invalid repository ID or local directory specified: '(?P<path2>[^']*)'"),
        "there is no model in {path}{path2}",
        NEVER,
        fix="Fetch it, or set MODEL_PATH to the folder that has it:\n./download_model.sh",
    ),
    Rule(
        "unsupported-architecture",
        says(
            r"Model architectures \[(?P<names>[^\]]*)\] .*not supported|does not recognize this architecture|model type `(?P<type>[^`]*)` but Transformers does not"
        ),
        "the installed vLLM does not know the model's architecture {names}",
        NEVER,
        fix=f"Set MODEL_PATH to a folder of Qwen3-VL weights, or install the release of vLLM that fits:\n{SET_UP}",
    ),
)

SETUP_RULES: tuple[Rule, ...] = (
    Rule(
        "engine-arguments",
        together(
            says(r"error: unrecognized arguments: (?P<arguments>.*)"),
            says(r"error: argument (?P<arguments>[^:]*): (?P<why>.*)"),
        ),
        "vLLM does not take the arguments {arguments}",
        NEVER,
        arguments_left,
        "The command line that was used:\nqwen-fp8 start --dry-run",
    ),
    Rule(
        "driver-too-old",
        says(
            r"NVIDIA driver on your system is too old(?: \(found version (?P<version>\d+)\))?|driver version is insufficient for CUDA runtime"
            r"|unsupported display driver / cuda driver|forward compatibility was attempted on non supported HW|compiled with an unsupported toolchain"
        ),
        "the NVIDIA driver is too old for the installed torch",
        NEVER,
        fix="Install a newer driver (root), ask for a node that has one, or take builds for an older CUDA; this tells which:\nqwen-fp8 gpus",
    ),
    Rule(
        "no-gpu",
        says(
            r"Found no NVIDIA driver|No CUDA GPUs are available|Failed to infer device type|no CUDA-capable device is detected|CUDA error: invalid device ordinal"
        ),
        "CUDA shows the engine fewer GPUs than it needs",
        NEVER,
        fix="qwen-fp8 gpus\nOn a machine without GPUs:\n./start_service.sh --profile demo",
    ),
    Rule(
        "cpu-too-old",
        says(r"requires AMX"),
        "this CPU cannot compute with FP8 weights: it has no AMX",
        NEVER,
        fix="Without a GPU, serve the demo:\n./start_service.sh --profile demo",
    ),
    Rule(
        "package-missing",
        says(r"No module named '?(?P<name>[\w.]+)|ImportError: (?P<library>lib[\w.+-]+): cannot open shared object file"),
        "the engine's installation is not whole: {name}{library} is missing",
        NEVER,
        fix=SET_UP,
    ),
    Rule("settings-refused", says(r"validation error.* for \w+Config"), "vLLM refuses a setting", NEVER, fix="qwen-fp8 config"),
)

RUNNING_RULES: tuple[Rule, ...] = (
    Rule(
        "shm-full",
        together(
            says(
                rf"Insufficient space in {SHM}|{SHM}/.*No space left on device|No space left on device.*(?:{SHM}|shared memory|psm_|shm)|unable to allocate shared memory"
            ),
            says(r"Bus error|exit code: -7\)"),
        ),
        f"{SHM} is full, through which the engine's processes speak",
        AGAIN,
        fix=f"Left by ended programs?\nls -l {SHM}\nIn a container: --shm-size=8g or --ipc=host. Else (root):\nmount -o remount,size=8g {SHM}",
    ),
    Rule(
        "disk-full",
        says(r"\[Errno 28\]|No space left on device"),
        "a disk is full that the engine writes to",
        AGAIN,
        fix="df -h\nMove its caches with VLLM_CACHE_ROOT, TRITON_CACHE_DIR and TMPDIR.",
    ),
    Rule("too-many-files", says(r"\[Errno 24\]|Too many open files"), "the engine may open no more files and connections", AGAIN, fix="ulimit -n 65535"),
    Rule(
        "rank-port-in-use",
        says(r"EADDRINUSE|server socket has failed to listen"),
        "the port through which the ranks find each other was taken meanwhile",
        AGAIN,
        fix="If it comes again, choose one:\nexport VLLM_PORT=29400",
    ),
    Rule("port-in-use", port_taken, "port {port} is in use{who}", AGAIN, to("PORT", "auto", "a free one is taken; run/endpoint.json tells which")),
    Rule(
        "gpu-hardware",
        says(r"CUDA error: (?P<what>uncorrectable ECC error\w*|\w+ is unavailable|.*NVLink|hardware stack error|unknown error|device is not available)"),
        "a GPU reports a fault: {what}",
        AGAIN,
        fix=f"qwen-fp8 gpus\n{ANOTHER_NODE}",
    ),
    Rule(
        "cuda-kernel",
        says(r"CUDA error: (?P<what>an illegal memory access|an illegal instruction|unspecified launch failure|misaligned address|device-side assert)"),
        "a kernel failed on a GPU: {what}",
        AGAIN,
        fix="If it comes again with the same request, keep that request; --moe-backend triton in VLLM_EXTRA_ARGS takes other kernels.",
    ),
    Rule(
        "step-timeout",
        stalled,
        "the workers did not answer the engine core in time: one of them hangs or has stopped",
        AGAIN,
        fix=f"If it comes again:\nqwen-fp8 gpus\n{ANOTHER_NODE}",
    ),
    Rule(
        "nccl",
        says(
            r"NCCL error|DistBackendError|ncclUnhandled|ncclSystemError|ncclInternalError|ncclRemoteError|Watchdog caught collective operation timeout|NCCL watchdog"
        ),
        "the GPUs of one engine could not speak with each other (NCCL)",
        AGAIN,
        fix="See links and fabric, then what NCCL says of itself:\nqwen-fp8 gpus\nnvidia-smi topo -m\nenv NCCL_DEBUG=INFO ./start_service.sh",
    ),
    Rule(
        "process-killed",
        killed,
        "a process of the engine was killed: by hand, or by the kernel for want of memory",
        AGAIN,
        fix="Perhaps the kernel's log says more (root):\ndmesg -T | tail -50",
    ),
)

UNKNOWN = Rule("unknown", nothing_else, "{headline}", AGAIN)
"""Always applies: the lines at the root of the log, not its last traceback."""

RULES: tuple[Rule, ...] = (*HOST_RULES, *MEMORY_RULES, *MODEL_RULES, *SETUP_RULES, *RUNNING_RULES, UNKNOWN)
