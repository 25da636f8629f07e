"""A CUDA driver that does nothing, so that Triton compiles, binds and launches where there is no GPU.

What the host does for a launch is then the whole of it. Needs a C compiler; for a process of its own: Triton keeps
the driver that it finds first.
"""

import ctypes
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ARCHITECTURE = 90
DRIVER = """
#include <stdint.h>
#include <stddef.h>
typedef int R;
typedef void *P;
/* of the attributes that Triton asks for: compute capability, multiprocessors, shared memory, registers */
R cuDeviceGetAttribute(int *v, int a, int d) {
  *v = a == 75 ? 9 : a == 76 ? 0 : a == 16 ? 132 : (a == 97 || a == 8 || a == 81) ? 232448 : a == 82 ? 65536 : 1;
  return 0;
}
R cuFuncGetAttribute(int *v, int a, P f) { *v = a == 0 ? 1024 : a == 4 ? 64 : 0; return 0; }
R cuPointerGetAttribute(uint64_t *v, int a, uint64_t p) { *v = p; return 0; }
R cuCtxGetCurrent(P *c) { *c = (P)1; return 0; }
R cuCtxGetLimit(size_t *v, int l) { *v = 1 << 20; return 0; }
R cuDeviceGet(int *d, int o) { *d = 0; return 0; }
R cuDevicePrimaryCtxRetain(P *c, int d) { *c = (P)1; return 0; }
R cuDriverGetVersion(int *v) { *v = 13000; return 0; }
R cuGetErrorString(int e, const char **s) { *s = "no GPU here"; return 0; }
R cuModuleGetFunction(P *f, P m, const char *n) { *f = (P)2; return 0; }
R cuModuleLoadData(P *m, const void *d) { *m = (P)3; return 0; }
R cuOccupancyMaxActiveClusters(int *n, P f, P c) { *n = 1; return 0; }
"""
NOTHING = (
    "cuInit", "cuCtxSetCurrent", "cuCtxSetLimit", "cuFuncSetAttribute", "cuFuncSetCacheConfig",
    "cuTensorMapEncodeTiled", "cuTensorMapEncodeIm2col", "cuLaunchKernelEx", "cuLaunchKernel",
)  # fmt: skip
"""Functions of the driver that succeed without a result."""


def install() -> None:
    """Put the driver that does nothing in the place of CUDA's, before Triton looks for one."""
    folder = Path(tempfile.mkdtemp())
    source = folder / "driver.c"
    source.write_text(DRIVER + "".join(f"R {name}() {{ return 0; }}\n" for name in NOTHING))
    library = folder / "libcuda.so.1"
    command = ["cc", "-w", "-shared", "-fPIC", "-O2", "-Wl,-soname,libcuda.so.1", "-o", library, source]
    subprocess.check_call(command)
    (folder / "libcuda.so").symlink_to(library.name)
    os.environ["TRITON_LIBCUDA_PATH"] = str(folder)
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    from triton.runtime import driver

    driver.set_active(_driver())


def _driver() -> Any:
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia import driver as nvidia

    class Driver:
        """Names one GPU; tensors may lie on the CPU, since nothing reads them."""

        def __init__(self) -> None:
            self.utils, self.launcher_cls = nvidia.CudaUtils(), nvidia.CudaLauncher

        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", ARCHITECTURE, 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, _device: int) -> int:
            return 0

        def get_device_capability(self, _device: int = 0) -> tuple[int, int]:
            return divmod(ARCHITECTURE, 10)

    return Driver()
