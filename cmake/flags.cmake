# Warnings, hardening and sanitizers for everything we compile.
add_library(postern_flags INTERFACE)
target_compile_definitions(postern_flags INTERFACE _GNU_SOURCE POSTERN_VERSION="${PROJECT_VERSION}")
target_compile_options(postern_flags INTERFACE -Wall -Wextra -Wshadow -Wconversion -Werror
  -fno-strict-aliasing -fstack-protector-strong -fPIE)
target_link_options(postern_flags INTERFACE -pie -Wl,-z,relro,-z,now)
if(POSTERN_FAULTS OR POSTERN_SANITIZE)
  target_compile_definitions(postern_flags INTERFACE POSTERN_FAULTS)
endif()
if(POSTERN_SANITIZE OR POSTERN_FUZZ)
  set(sanitizers address,undefined)
  target_compile_options(postern_flags INTERFACE -fsanitize=${sanitizers}
    -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(postern_flags INTERFACE -fsanitize=${sanitizers})
else()
  target_compile_definitions(postern_flags INTERFACE
    $<$<NOT:$<CONFIG:Debug>>:_FORTIFY_SOURCE=2>)
endif()
if(POSTERN_FUZZ)
  target_compile_options(postern_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
