/* A stand-in for NVIDIA's libnvidia-ml.so.1: H100s as FAKE_NVML describes them, one word each, separated by spaces.
 *
 *   init=9              nvmlInit fails with that code (9 driver not loaded, 18 driver and library differ)
 *   count=8             GPUs
 *   lost=3              that GPU's handle cannot be had; gone=3: the handle can, every reading fails
 *   no=MemoryInfo_v2    that getter is one the GPU does not support; may be repeated
 *   proc=0:4711:1024    on GPU 0 process 4711 uses 1024 MiB; ? for MiB is memory that the driver does not tell; may be repeated
 *   used=0:5000         MiB in use on GPU 0
 *
 * Only what nvidia-ml-py resolves for our calls is here; what is missing is "function not found" to it, as with an old driver.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, SMALL = 7, LOST = 15 };
#define MIB (1024ULL * 1024ULL)
#define TOTAL_MIB 81559ULL
#define RESERVED_MIB 479ULL

typedef unsigned long long u64;
typedef struct { int index; } Device;
typedef struct { unsigned version; u64 total, reserved, free, used; } MemoryV2;
typedef struct { u64 total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned pid; u64 used; unsigned gpu_instance, compute_instance; } Process;

static Device devices[64];

/* The n-th value of a word, or NULL. */
static const char *word(const char *name, int nth) {
    static char copy[8192];
    const char *text = getenv("FAKE_NVML");
    snprintf(copy, sizeof copy, "%s", text ? text : "");
    for (char *one = strtok(copy, " "); one; one = strtok(NULL, " ")) {
        size_t length = strlen(name);
        if (strncmp(one, name, length) == 0 && one[length] == '=' && nth-- == 0) return one + length + 1;
    }
    return NULL;
}

static int number(const char *name, int otherwise) {
    const char *value = word(name, 0);
    return value ? atoi(value) : otherwise;
}

static int refused(Device *device, const char *getter) {
    const char *value;
    if (number("gone", -1) == device->index) return LOST;
    for (int n = 0; (value = word("no", n)); n++)
        if (strcmp(value, getter) == 0) return NOT_SUPPORTED;
    return OK;
}
#define ASK(getter) do { int refusal = refused(device, getter); if (refusal) return refusal; } while (0)

static u64 used_bytes(int index) {
    const char *value;
    int gpu;
    u64 mib;
    for (int n = 0; (value = word("used", n)); n++)
        if (sscanf(value, "%d:%llu", &gpu, &mib) == 2 && gpu == index) return mib * MIB;
    return 0;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return number("init", OK); }
int nvmlShutdown(void) { return OK; }

/* nvidia-ml-py has its own words for the codes that it knows. */
const char *nvmlErrorString(int code) { return code == 9 ? "Driver Not Loaded" : code == LOST ? "GPU is lost" : "Unknown Error"; }

int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)number("count", 8); return OK; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device) {
    if ((int)index >= number("count", 8) || index >= 64) return INVALID;
    if (number("lost", -1) == (int)index) return LOST;
    devices[index].index = (int)index;
    *device = &devices[index];
    return OK;
}

int nvmlDeviceGetName(Device *device, char *name, unsigned length) {
    ASK("Name");
    snprintf(name, length, "NVIDIA H100 80GB HBM3");
    return OK;
}

int nvmlDeviceGetUUID(Device *device, char *uuid, unsigned length) {
    ASK("UUID");
    snprintf(uuid, length, "GPU-00000000-0000-0000-0000-%012d", device->index);
    return OK;
}

int nvmlDeviceGetMemoryInfo_v2(Device *device, MemoryV2 *memory) {
    ASK("MemoryInfo_v2");
    memory->total = TOTAL_MIB * MIB;
    memory->reserved = RESERVED_MIB * MIB;
    memory->used = used_bytes(device->index);
    memory->free = memory->total - memory->reserved - memory->used;
    return OK;
}

int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    ASK("MemoryInfo");
    memory->total = TOTAL_MIB * MIB;
    memory->used = used_bytes(device->index) + RESERVED_MIB * MIB; /* the old call counts what the driver keeps as used */
    memory->free = memory->total - memory->used;
    return OK;
}

int nvmlDeviceGetUtilizationRates(Device *device, Utilization *rates) { ASK("Utilization"); rates->gpu = 37; rates->memory = 12; return OK; }
int nvmlDeviceGetPowerUsage(Device *device, unsigned *milliwatts) { ASK("Power"); *milliwatts = 123450; return OK; }
int nvmlDeviceGetTemperature(Device *device, int sensor, unsigned *celsius) { (void)sensor; ASK("Temperature"); *celsius = 41; return OK; }

int nvmlDeviceGetComputeRunningProcesses_v3(Device *device, unsigned *count, Process *processes) {
    unsigned room = *count, found = 0, pid;
    int gpu, fits = 1;
    u64 mib;
    const char *value;
    ASK("Processes");
    for (int n = 0; (value = word("proc", n)); n++) {
        int fields = sscanf(value, "%d:%u:%llu", &gpu, &pid, &mib);
        if (fields < 2 || gpu != device->index) continue;
        if (found < room) processes[found] = (Process){pid, fields == 3 ? mib * MIB : ~0ULL, ~0u, ~0u};
        else fits = 0;
        found++;
    }
    *count = found;
    return fits ? OK : SMALL;
}
