// What a CPU build of torch asks of CUDA: a device guard and hooks that do nothing.
//
// The guard is registered once, as this library is loaded. The hooks are one object that torch
// makes at the first question and keeps; it has no fields, so ours is put in its place and taken
// away again.

#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/FakeGuardImpl.h>

#include <new>

namespace c10::impl {
C10_REGISTER_GUARD_IMPL(CUDA, FakeGuardImpl<DeviceType::CUDA>);
}

namespace {

struct EmulatedHooks : at::CUDAHooksInterface {
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(at::DeviceIndex) const override { return true; }
  at::DeviceIndex deviceCount() const override { return 1; }
  at::DeviceIndex current_device() const override { return 0; }
  at::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(at::DeviceIndex) const override {}
  at::DeviceIndex exchangeDevice(at::DeviceIndex) const override { return 0; }
  at::DeviceIndex maybeExchangeDevice(at::DeviceIndex) const override { return 0; }
  int getNumGPUs() const override { return 1; }
  void deviceSynchronize(at::DeviceIndex) const override {}
};

static_assert(sizeof(EmulatedHooks) == sizeof(at::CUDAHooksInterface));

}  // namespace

extern "C" void emulate_cuda(bool on) {
  auto* place = const_cast<at::CUDAHooksInterface*>(&at::detail::getCUDAHooks());
  if (on) {
    new (place) EmulatedHooks;
  } else {
    new (place) at::CUDAHooksInterface;
  }
}
