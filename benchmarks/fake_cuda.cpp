// A CUDA device that does nothing, so that torch computes with fake CUDA tensors where no card is:
// without it autograd ends the process. benchmarks/fake_cuda.py compiles and loads it.
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <ATen/detail/CUDAHooksInterface.h>
using namespace c10;
constexpr auto CUDA = DeviceType::CUDA;
static Stream none() { return Stream(Stream::DEFAULT, Device(CUDA, 0)); }
struct Guard final : impl::DeviceGuardImplInterface {
  DeviceType type() const override { return CUDA; }
  Device exchangeDevice(Device) const override { return {CUDA, 0}; }
  Device getDevice() const override { return {CUDA, 0}; }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  Stream getStream(Device) const noexcept override { return none(); }
  Stream getDefaultStream(Device) const override { return none(); }
  Stream exchangeStream(Stream) const noexcept override { return none(); }
  DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const Stream&, const DeviceIndex, const EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
};
struct NoCUDA : at::CUDAHooksInterface {
  // Made at the first question for CUDA, when a build of torch with CUDA has set its own guard.
  NoCUDA(at::CUDAHooksArgs) {
    impl::device_guard_impl_registry[static_cast<size_t>(CUDA)].store(new Guard());
  }
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
};
namespace c10::impl { C10_REGISTER_GUARD_IMPL(CUDA, Guard) }
// Before the hooks of a build with CUDA.
namespace at {
C10_REGISTER_CLASS_WITH_PRIORITY(CUDAHooksRegistry, CUDAHooks, c10::REGISTRY_PREFERRED, NoCUDA)
}
