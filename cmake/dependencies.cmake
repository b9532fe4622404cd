# What the project stands on. Each missing piece names the Debian package that brings it.
find_package(PkgConfig REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS C)

function(vlm_require prefix module package)
  pkg_check_modules(${prefix} IMPORTED_TARGET ${module})
  if(NOT ${prefix}_FOUND)
    message(FATAL_ERROR "${module} was not found: install ${package} (scripts/setup.sh does it)")
  endif()
endfunction()

vlm_require(JANSSON jansson libjansson-dev)
vlm_require(PCRE2 libpcre2-8 libpcre2-dev)
vlm_require(UTF8PROC libutf8proc libutf8proc-dev)
vlm_require(JPEG libjpeg libjpeg-dev)
vlm_require(PNG libpng libpng-dev)
vlm_require(WEBP libwebp libwebp-dev)
vlm_require(WEBPDEMUX libwebpdemux libwebp-dev)
vlm_require(CAIRO cairo libcairo2-dev)
vlm_require(CMOCKA cmocka libcmocka-dev)
add_library(jansson ALIAS PkgConfig::JANSSON)

# Debian's oneDNN 2 carries no CMake package, so it is found by file; src/ops/cpu/gemm.c speaks versions 2 and 3.
find_path(DNNL_INCLUDE dnnl.h PATH_SUFFIXES oneapi/dnnl)
find_library(DNNL_LIBRARY dnnl)
if(NOT DNNL_INCLUDE OR NOT DNNL_LIBRARY)
  message(FATAL_ERROR "oneDNN was not found: install libdnnl-dev (scripts/setup.sh does it)")
endif()
add_library(onednn INTERFACE)
target_include_directories(onednn SYSTEM INTERFACE ${DNNL_INCLUDE})
target_link_libraries(onednn INTERFACE ${DNNL_LIBRARY})

include(cmake/arrow.cmake)
