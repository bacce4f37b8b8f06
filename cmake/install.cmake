# What is installed beside the programs: configuration, unit, users, manual
# pages, documentation.
set(POSTERN_UNIT_DIR lib/systemd/system CACHE STRING "directory of systemd units")
set(POSTERN_SYSUSERS_DIR lib/sysusers.d CACHE STRING "directory of sysusers.d files")

set(CONFIGURATION_DIRECTORY ${CMAKE_INSTALL_FULL_SYSCONFDIR}/postern)
set(PROGRAM_DIRECTORY ${CMAKE_INSTALL_PREFIX}/lib/postern)
configure_file(etc/postern.service ${CMAKE_BINARY_DIR}/postern.service @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/postern.service DESTINATION ${POSTERN_UNIT_DIR})
install(FILES debian/postern.sysusers DESTINATION ${POSTERN_SYSUSERS_DIR} RENAME postern.conf)

# An administrator's configuration is never overwritten; the samples are beside it.
foreach(file main.cf master.cf providers.conf sources.conf)
  install(FILES etc/${file} DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
  install(CODE "
    set(target \"\$ENV{DESTDIR}${CONFIGURATION_DIRECTORY}/${file}\")
    if(EXISTS \"\${target}\")
      message(STATUS \"Kept as it is: \${target}\")
    else()
      file(INSTALL DESTINATION \"${CONFIGURATION_DIRECTORY}\" TYPE FILE
        FILES \"${CMAKE_SOURCE_DIR}/etc/${file}\")
    endif()")
endforeach()
install(FILES etc/plans.conf DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
install(FILES etc/postern.logrotate DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
install(PROGRAMS etc/certbot-deploy-hook DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
install(FILES etc/fail2ban/postern.conf DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples/fail2ban)
install(FILES README.md INSTALL doc/operators-guide.md doc/ARCHITECTURE.md doc/control-protocol.md
  doc/spool-crash-argument.md DESTINATION ${CMAKE_INSTALL_DOCDIR})

# Manual pages: postern(8) from the command's own help, main.cf(5) from the
# table of parameters, so that neither can say anything else than the code.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(MAN_DIR ${CMAKE_BINARY_DIR}/man)
add_custom_command(OUTPUT ${MAN_DIR}/main.cf.5
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/tools/man-main-cf
    ${CMAKE_SOURCE_DIR}/lib/conf/params.def ${PROJECT_VERSION} ${MAN_DIR}/main.cf.5
  DEPENDS tools/man-main-cf lib/conf/params.def)
add_custom_command(OUTPUT ${MAN_DIR}/postern.8
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/tools/man-postern
    $<TARGET_FILE:ctl_program> ${PROJECT_VERSION} ${MAN_DIR}/postern.8
  DEPENDS tools/man-postern ctl_program)
configure_file(doc/master.cf.5.in ${MAN_DIR}/master.cf.5 @ONLY)
add_custom_target(man ALL DEPENDS ${MAN_DIR}/main.cf.5 ${MAN_DIR}/postern.8)
# named so that they can lie beside Postfix's pages of the same names
install(FILES ${MAN_DIR}/main.cf.5 DESTINATION ${CMAKE_INSTALL_MANDIR}/man5 RENAME postern-main.cf.5)
install(FILES ${MAN_DIR}/master.cf.5 DESTINATION ${CMAKE_INSTALL_MANDIR}/man5
  RENAME postern-master.cf.5)
install(FILES ${MAN_DIR}/postern.8 DESTINATION ${CMAKE_INSTALL_MANDIR}/man8)

# Postfix's names for postern. An installed Postfix has the same names in sbin and
# bin: links lie there only if asked for.
option(POSTERN_COMPAT_LINKS "mailq, postqueue, sendmail ... beside postern, for a machine without Postfix" OFF)
set(COMPAT_DIRECTORY ${CMAKE_INSTALL_PREFIX}/lib/postern/compat)
if(POSTERN_COMPAT_LINKS)
  set(COMPAT_DIRECTORY ${CMAKE_INSTALL_FULL_SBINDIR})
endif()
foreach(name mailq postqueue postsuper postcat postconf sendmail)
  install(CODE "
    set(directory \"\$ENV{DESTDIR}${COMPAT_DIRECTORY}\")
    file(MAKE_DIRECTORY \"\${directory}\")
    file(CREATE_LINK ${CMAKE_INSTALL_FULL_SBINDIR}/postern \"\${directory}/${name}\" SYMBOLIC)
    list(APPEND CMAKE_INSTALL_MANIFEST_FILES \"${COMPAT_DIRECTORY}/${name}\")
    message(STATUS \"Installing: \${directory}/${name}\")")
endforeach()
