# The CPU backend: src/ops/cpu/*.c are compiled once a level of x86-64 with that level's instructions, and
# src/ops/cpu/once/*.c once. cpu.c chooses the level at start (VLM_CPU_LEVEL forces a lower one).
file(GLOB cpu_once CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/ops/cpu/once/*.c)
if(cpu_once)
  add_library(ops_cpu STATIC ${cpu_once})
  target_link_libraries(ops_cpu PUBLIC tensor onednn OpenMP::OpenMP_C)
else()
  add_library(ops_cpu INTERFACE)
endif()
