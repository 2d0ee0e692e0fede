/* A stand-in for NVIDIA's libnvidia-ml.so.1: the H100s that the file named by FAKE_NVML_FILE describes.
 *
 * The file holds words KEY=VALUE between white space and is read again at every call, so that GPUs can change while somebody looks.
 * A value is for one GPU when it begins with its index and a colon ("used=0:5000"), else for all; the last word that fits counts.
 * tests/fake_nvml/fake.py builds the library and writes the file.
 *
 *   init=9              nvmlInit fails with that code (9 driver not loaded, 12 no library, 18 driver and library differ)
 *   count=8             GPUs; list=999: they cannot be counted
 *   driver=580.95.05    its version; cuda=13000 the newest CUDA it runs
 *   name=NVIDIA_L40S    _ stands for a space; total=81559 and reserved=479 in MiB; capability=9.0
 *   lost=3              that GPU's handle cannot be had; gone=3: the handle can, every reading fails
 *   no=3:Power          a reading this GPU does not support; fail=3:Power:999: it fails with that code; both may be repeated
 *   proc=0:4711:1024    on GPU 0 process 4711 uses 1024 MiB; ? for MiB is memory that the driver does not tell; may be repeated
 *   draw=0:4711:1024    the same for a process that draws
 *   used=0:5000         MiB in use on GPU 0; without it what its processes use
 *   util=0:37  temperature=0:41  power=0:123450 (mW)  limit=0:700000 (mW)  persistence=0:0
 *   events=0:0x48       clocks event reasons; ecc=0:2 uncorrected errors; remap=0:pending or remap=0:failed; mig=0:1
 *   links=0:18          NVLinks; down=0:2 so many of them are down
 *
 * Only what readers ask for is here; what is missing is "function not found" to nvidia-ml-py, as with an old driver. To leave one more
 * out, rename it: cc -DnvmlDeviceGetMemoryInfo_v2=left_out.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, SMALL = 7, LOST = 15, FIELD_LINK_COUNT = 91, MOST_GPUS = 64 };
#define MIB (1024ULL * 1024ULL)

typedef unsigned long long u64;
typedef struct { int index; } Device;
typedef struct { unsigned version; u64 total, reserved, free, used; } MemoryV2;
typedef struct { u64 total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned pid; u64 used; unsigned gpu_instance, compute_instance; } Process;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
typedef struct { unsigned version; int sensor, celsius; } Temperature;
typedef struct { unsigned field, scope; long long at, latency; int type, code; union { double d; unsigned u; u64 wide; } value; } Field;

static Device devices[MOST_GPUS];
static char words[1 << 16];
static const char *at;

/* --- the file --- */

static void open_words(void) {
    const char *path = getenv("FAKE_NVML_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    size_t length = file ? fread(words, 1, sizeof words - 1, file) : 0;
    words[length] = 0;
    if (file) fclose(file);
    at = words;
}

/* The value of the next word with this name, or NULL. */
static const char *next(const char *name) {
    static char value[256];
    char word[256];
    int taken;
    size_t length = strlen(name);
    while (sscanf(at, "%255s%n", word, &taken) == 1) {
        at += taken;
        if (strncmp(word, name, length) == 0 && word[length] == '=') return strcpy(value, word + length + 1);
    }
    return NULL;
}

/* The value without "GPU:", or NULL when it is for another GPU. */
static const char *meant_for(const char *value, int gpu) {
    int index, taken = 0;
    if (sscanf(value, "%d:%n", &index, &taken) == 1 && taken) return index == gpu ? value + taken : NULL;
    return value;
}

static const char *text(const char *name, int gpu, const char *otherwise) {
    static char found[256];
    const char *value;
    strcpy(found, otherwise);
    open_words();
    while ((value = next(name)))
        if ((value = meant_for(value, gpu))) strcpy(found, value);
    return found;
}

static long number(const char *name, int gpu, long otherwise) {
    const char *value = text(name, gpu, "");
    return *value ? strtol(value, NULL, 0) : otherwise;
}

static int named(const char *name, int gpu) {
    const char *value;
    open_words();
    while ((value = next(name)))
        if (atoi(value) == gpu) return 1;
    return 0;
}

static int refused(const Device *device, const char *getter) {
    const char *value;
    char failing[256];
    int code;
    if (named("gone", device->index)) return LOST;
    open_words();
    while ((value = next("no")))
        if ((value = meant_for(value, device->index)) && strcmp(value, getter) == 0) return NOT_SUPPORTED;
    open_words();
    while ((value = next("fail")))
        if ((value = meant_for(value, device->index)) && sscanf(value, "%255[^:]:%d", failing, &code) == 2 && strcmp(failing, getter) == 0) return code;
    return OK;
}
#define ASK(getter) do { int refusal = refused(device, getter); if (refusal) return refusal; } while (0)

/* --- the driver --- */

int nvmlInitWithFlags(unsigned flags) { (void)flags; return (int)number("init", -1, OK); }
int nvmlShutdown(void) { return OK; }

/* nvidia-ml-py has its own words for the codes that it knows. */
const char *nvmlErrorString(int code) { return code == 9 ? "Driver Not Loaded" : code == LOST ? "GPU is lost" : "Unknown Error"; }

int nvmlSystemGetDriverVersion(char *version, unsigned length) { snprintf(version, length, "%s", text("driver", -1, "580.95.05")); return OK; }
int nvmlSystemGetNVMLVersion(char *version, unsigned length) { snprintf(version, length, "13.%s", text("driver", -1, "580.95.05")); return OK; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = (int)number("cuda", -1, 13000); return OK; }
int nvmlSystemGetCudaDriverVersion(int *version) { return nvmlSystemGetCudaDriverVersion_v2(version); }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)number("count", -1, 8); return (int)number("list", -1, OK); }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device) {
    if ((int)index >= number("count", -1, 8) || index >= MOST_GPUS) return INVALID;
    if (named("lost", (int)index)) return LOST;
    devices[index].index = (int)index;
    *device = &devices[index];
    return OK;
}

/* --- what a GPU is --- */

static void print_uuid(int index, char *uuid, unsigned length) { snprintf(uuid, length, "GPU-%08x-0000-0000-0000-%012d", 0xa0 + index, index); }

int nvmlDeviceGetHandleByUUID(const char *uuid, Device **device) {
    char own[96];
    for (unsigned index = 0; index < MOST_GPUS; index++) {
        print_uuid((int)index, own, sizeof own);
        if (strcmp(uuid, own) == 0) return nvmlDeviceGetHandleByIndex_v2(index, device);
    }
    return 6; /* not found */
}

int nvmlDeviceGetName(Device *device, char *name, unsigned length) {
    ASK("Name");
    snprintf(name, length, "%s", text("name", device->index, "NVIDIA_H100_80GB_HBM3"));
    for (char *one = name; *one; one++)
        if (*one == '_') *one = ' ';
    return OK;
}

int nvmlDeviceGetUUID(Device *device, char *uuid, unsigned length) { ASK("UUID"); print_uuid(device->index, uuid, length); return OK; }
int nvmlDeviceGetIndex(Device *device, unsigned *index) { *index = (unsigned)device->index; return OK; }
int nvmlDeviceGetMinorNumber(Device *device, unsigned *minor) { *minor = (unsigned)device->index; return OK; }

int nvmlDeviceGetPciInfo_v3(Device *device, Pci *pci) {
    ASK("Pci");
    memset(pci, 0, sizeof *pci);
    pci->bus = (unsigned)(0x18 + 8 * device->index);
    pci->id = 0x233010deu;
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", pci->bus);
    snprintf(pci->legacy, sizeof pci->legacy, "0000:%02X:00.0", pci->bus);
    return OK;
}

int nvmlDeviceGetCudaComputeCapability(Device *device, int *major, int *minor) {
    ASK("ComputeCapability");
    return sscanf(text("capability", device->index, "9.0"), "%d.%d", major, minor) == 2 ? OK : INVALID;
}

/* --- memory and who holds it --- */

static int list(const char *kind, int gpu, unsigned *count, Process *processes) {
    unsigned room = *count, found = 0, pid;
    u64 mib;
    const char *value;
    open_words();
    while ((value = next(kind))) {
        if (!(value = meant_for(value, gpu))) continue;
        int fields = sscanf(value, "%u:%llu", &pid, &mib);
        if (fields < 1) continue;
        if (found < room) processes[found] = (Process){pid, fields == 2 ? mib * MIB : ~0ULL, ~0u, ~0u};
        found++;
    }
    *count = found;
    return found <= room ? OK : SMALL;
}

static u64 used_bytes(int gpu) {
    static Process processes[512];
    const char *kinds[] = {"proc", "draw"};
    u64 sum = 0;
    long given = number("used", gpu, -1);
    if (given >= 0) return (u64)given * MIB;
    for (int kind = 0; kind < 2; kind++) {
        unsigned count = 512;
        if (list(kinds[kind], gpu, &count, processes) != OK) continue;
        for (unsigned n = 0; n < count; n++)
            if (processes[n].used != ~0ULL) sum += processes[n].used;
    }
    return sum;
}

int nvmlDeviceGetMemoryInfo_v2(Device *device, MemoryV2 *memory) {
    ASK("MemoryInfo_v2");
    memory->total = (u64)number("total", device->index, 81559) * MIB;
    memory->reserved = (u64)number("reserved", device->index, 479) * MIB;
    memory->used = used_bytes(device->index);
    memory->free = memory->total - memory->reserved - memory->used;
    return OK;
}

int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    ASK("MemoryInfo");
    memory->total = (u64)number("total", device->index, 81559) * MIB;
    memory->used = used_bytes(device->index) + (u64)number("reserved", device->index, 479) * MIB; /* the old call counts what the driver keeps as used */
    memory->free = memory->total - memory->used;
    return OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Device *device, unsigned *count, Process *processes) { ASK("Processes"); return list("proc", device->index, count, processes); }
int nvmlDeviceGetComputeRunningProcesses_v2(Device *device, unsigned *count, Process *processes) { ASK("Processes"); return list("proc", device->index, count, processes); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(Device *device, unsigned *count, Process *processes) { ASK("Processes"); return list("draw", device->index, count, processes); }
int nvmlDeviceGetMPSComputeRunningProcesses_v3(Device *device, unsigned *count, Process *processes) { ASK("Processes"); return list("mps", device->index, count, processes); }

/* --- how it does --- */

int nvmlDeviceGetUtilizationRates(Device *device, Utilization *rates) {
    ASK("Utilization");
    rates->gpu = (unsigned)number("util", device->index, 37);
    rates->memory = 12;
    return OK;
}

#define NUMBER(function, getter, type, key, otherwise) \
    int function(Device *device, type *value) { ASK(getter); *value = (type)number(key, device->index, otherwise); return OK; }
NUMBER(nvmlDeviceGetPowerUsage, "Power", unsigned, "power", 123450)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, "PowerLimit", unsigned, "limit", 700000)
NUMBER(nvmlDeviceGetPowerManagementLimit, "PowerLimit", unsigned, "limit", 700000)
NUMBER(nvmlDeviceGetPersistenceMode, "Persistence", int, "persistence", 1)
NUMBER(nvmlDeviceGetCurrentClocksEventReasons, "ClocksEventReasons", u64, "events", 0)
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, "ClocksThrottleReasons", u64, "events", 0)

int nvmlDeviceGetTemperature(Device *device, int sensor, unsigned *celsius) {
    (void)sensor;
    ASK("Temperature");
    *celsius = (unsigned)number("temperature", device->index, 41);
    return OK;
}

int nvmlDeviceGetTemperatureV(Device *device, Temperature *reading) {
    ASK("Temperature");
    reading->celsius = (int)number("temperature", device->index, 41);
    return OK;
}

int nvmlDeviceGetEccMode(Device *device, int *current, int *pending) { ASK("Ecc"); *current = *pending = 1; return OK; }

int nvmlDeviceGetTotalEccErrors(Device *device, int type, int counter, u64 *count) {
    ASK("Ecc");
    *count = type == 1 && counter == 0 ? (u64)number("ecc", device->index, 0) : 0; /* uncorrected, volatile */
    return OK;
}

int nvmlDeviceGetRemappedRows(Device *device, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
    ASK("RemappedRows");
    const char *what = text("remap", device->index, "");
    *corrected = *uncorrected = 0;
    *pending = strcmp(what, "pending") == 0;
    *failed = strcmp(what, "failed") == 0;
    return OK;
}

int nvmlDeviceGetMigMode(Device *device, unsigned *current, unsigned *pending) {
    ASK("Mig");
    *current = *pending = (unsigned)number("mig", device->index, 0);
    return OK;
}

int nvmlDeviceGetFieldValues(Device *device, int count, Field *fields) {
    ASK("FieldValues");
    for (int n = 0; n < count; n++) {
        fields[n].code = fields[n].field == FIELD_LINK_COUNT ? OK : NOT_SUPPORTED;
        fields[n].value.u = (unsigned)number("links", device->index, 18);
    }
    return OK;
}

int nvmlDeviceGetNvLinkState(Device *device, unsigned link, int *active) {
    ASK("NvLinkState");
    if (link >= (unsigned)number("links", device->index, 18)) return INVALID;
    *active = (int)link >= number("down", device->index, 0);
    return OK;
}

/* --- what only other readers ask for: without these, nvitop spends its time on reporting that they are missing --- */

int nvmlDeviceGetDisplayActive(Device *device, int *active) { (void)device; *active = 0; return OK; }
int nvmlDeviceGetPerformanceState(Device *device, int *state) { (void)device; *state = 0; return OK; }
int nvmlDeviceGetComputeMode(Device *device, int *mode) { (void)device; *mode = 0; return OK; }
int nvmlDeviceGetEncoderUtilization(Device *device, unsigned *percent, unsigned *period) { (void)device; *percent = 0; *period = 167000; return OK; }
int nvmlDeviceGetDecoderUtilization(Device *device, unsigned *percent, unsigned *period) { (void)device; *percent = 0; *period = 167000; return OK; }
int nvmlDeviceGetFanSpeed(Device *device, unsigned *percent) { (void)device; (void)percent; return NOT_SUPPORTED; }
int nvmlDeviceGetDriverModel(Device *device, int *current, int *pending) { (void)device; (void)current; (void)pending; return NOT_SUPPORTED; }
int nvmlDeviceGetProcessUtilization(Device *device, void *samples, unsigned *count, u64 since) { (void)device; (void)samples; (void)count; (void)since; return 6; }
